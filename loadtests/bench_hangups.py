"""Callers who hang up: how soon the LLM's slot is free again, and whether any count is left behind."""

import asyncio
import re
import time
from collections.abc import Iterator

import msgspec

from loadtests.bench_plan import MODEL, Plan
from loadtests.offered import percentile
from loadtests.offering import COMPLETIONS, body_of, checked, offer, offered
from loadtests.rows import OURS
from loadtests.running import Server, fetched, waited_for
from loadtests.simulated_control import told
from loadtests.simulated_llm import replicas

GPU = ("step_ms=10", "step_ms_per_answer=0.05", "max_num_seqs=512", "answer_tokens=200", f"model={MODEL}")
TOKENS = 90
RATE = 150.0
MANY = 101_000
"""Questions of a soak; nearly all are left by their callers."""
LEAVE = (0.005, 0.8)
"""Seconds after which a caller leaves, by chance: before, at or after the first delta. All take 0.9."""
COUNTED = ("tandem_generations_running", "tandem_generations_waiting")


def hangups(plan: Plan) -> Iterator[str]:
    """One after another for the time, many at once for the counts."""
    with (
        replicas(1, "--preset", "quick", "--set", *GPU) as (llm,),
        plan.business([llm], "hangups").started() as (server, _),
    ):
        for _ in range(plan.rounds):
            yield "one at a time"
            times = [_freed_ms(llm, server) for _ in range(plan.either(40, 200))]
            plan.found.note(OURS, freed_p99=percentile(times, 0.99))
        yield "many at once"
        seconds = plan.either(5.0, 40.0) if not plan.soak else MANY / RATE
        load = offered(server.url, body_of(OURS, TOKENS), RATE, seconds, leave=LEAVE, patience=3.0)
        asked, _ = checked(offer(load))
        plan.found.note(OURS, leaked=leaks(llm, server))
        left = sum(one.ended == "left" for one in asked)
        plan.found.tell("leaked", f"after {left:,} hang-ups among {len(asked):,} questions")


def _freed_ms(llm: Server, server: Server) -> float:
    """From the hang-up of a running stream to the moment when the LLM server runs nothing."""
    asyncio.run(_ask_and_leave(server))
    began = time.perf_counter()
    waited_for(lambda: told(llm).unfinished == 0, 10.0, 0.001)
    return (time.perf_counter() - began) * 1000


async def _ask_and_leave(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = msgspec.json.encode(body_of(OURS, TOKENS))
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readuntil(b"\n\n")
    await asyncio.sleep(0.03)
    writer.transport.abort()


def leaks(llm: Server, server: Server, patience: float = 10.0) -> int:
    """What is still counted as running or waiting when all callers are gone: by us, and by the LLM server."""

    def counted() -> int:
        page = fetched("GET", server.url, "/metrics")[1].decode()
        ours = [float(re.findall(rf"^{name} (\S+)$", page, re.MULTILINE)[0]) for name in COUNTED]
        return round(sum(ours)) + told(llm).unfinished

    try:
        waited_for(lambda: counted() == 0, patience, 0.1)
    except TimeoutError:
        return counted()
    return 0
