"""Orders to a simulated LLM server that is a process of its own, and what it tells."""

import msgspec

from loadtests.running import Server, fetched
from loadtests.simulated_faults import Order
from loadtests.simulated_metrics import Counts


class Told(msgspec.Struct):
    """What GET /control tells."""

    unfinished: int
    counts: Counts


def told(server: Server) -> Told:
    """Raises OSError when nobody answers."""
    return msgspec.json.decode(fetched("GET", server.url, "/control")[1], type=Told)


def counts_of(server: Server) -> Counts:
    """What happened so far. Raises OSError when nobody answers."""
    return told(server).counts


def order(server: Server, wanted: Order) -> None:
    """Have it done. Raises OSError when nobody answers."""
    status, said = fetched("POST", server.url, "/control", msgspec.json.encode(wanted))
    if status != 200:
        raise RuntimeError(said.decode())
