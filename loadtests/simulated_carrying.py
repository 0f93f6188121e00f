"""How many streams one simulated LLM server carries on this machine, by its own account of its lateness.

    python -m loadtests.simulated_carrying --streams 250 500 1000 --seconds 5

Each stream is paced at 50 tokens a second, or as `--pace` says. The callers only drain their sockets: the
server is measured.
"""

import argparse
import contextlib
import re
import select
import socket
import sys
import time
from urllib.parse import urlsplit

import msgspec

from loadtests.running import Server, fetched
from loadtests.simulated_llm import replicas
from loadtests.simulated_metrics import LATE_SHARE
from loadtests.traffic import asked

PRESET = "paced-50"
WARM_SECONDS = 2.0


class Carried(msgspec.Struct, frozen=True):
    """One rung. `late` is the share of late steps, `p99_ms` how late the steps were, `rate` the tokens a
    second of each stream (`pace` is what it should be), `cores` the server's CPU time by wall time."""

    streams: int
    pace: float
    late: float
    p99_ms: float
    rate: float
    cores: float

    @property
    def held(self) -> bool:
        """Whether the 99th percentile of the lateness is below a tenth of the step."""
        return self.p99_ms < LATE_SHARE * 1000 / self.pace


def opened(server: Server, streams: int, tokens: int) -> list[socket.socket]:
    """So many streams, asked for at once."""
    address = urlsplit(server.url)
    body = msgspec.json.encode(asked("simulated", "How many?", max_tokens=tokens) | {"ignore_eos": True})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    found = []
    for _ in range(streams):
        one = socket.create_connection((address.hostname or "", address.port or 80))
        one.sendall(head.encode() + body)
        one.setblocking(False)
        found.append(one)
    return found


def drained(sockets: list[socket.socket], seconds: float) -> None:
    """Read whatever comes, twenty times a second: callers that wake for each frame take the server's time."""
    poll = select.epoll()
    by_number = {one.fileno(): one for one in sockets}
    for number in by_number:
        poll.register(number, select.EPOLLIN | select.EPOLLET)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        for number, _ in poll.poll(0):
            by_number[number].recv(65536)
    poll.close()


def told(servers: list[Server], name: str) -> list[float]:
    """A metric, of each server. Raises TimeoutError when one does not answer for ten seconds."""
    pages = [fetched("GET", server.url, "/metrics")[1].decode() for server in servers]
    return [float(re.findall(rf"^{name}{{.*?}} (\S+)$", page, re.MULTILINE)[0]) for page in pages]


def measured(streams: int, pace: float, seconds: float, interval: int, processes: int) -> Carried:
    """One rung of the ladder, on servers of its own. Raises TimeoutError when they are swamped."""
    names = ("simulated_steps_total", "simulated_late_steps_total", "vllm:generation_tokens_total")
    changes = ("--set", "max_model_len=100000", f"stream_interval={interval}", f"step_ms={1000 / pace}")
    tokens = round(2 * (WARM_SECONDS + seconds) * pace)
    with replicas(processes, "--preset", PRESET, *changes) as servers, contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(one)
            for server in servers
            for one in opened(server, streams // processes, tokens)
        ]
        drained(sockets, WARM_SECONDS)
        before, used, began = [sum(told(servers, name)) for name in names], _cpu(servers), time.monotonic()
        drained(sockets, seconds)
        wall, used = time.monotonic() - began, _cpu(servers) - used
        steps, late, said = (sum(told(servers, name)) - old for name, old in zip(names, before, strict=True))
        p99 = max(told(servers, "simulated_step_lateness_seconds"))
    return Carried(streams, pace, late / steps, p99 * 1000, said / streams / wall, used / wall)


def _cpu(servers: list[Server]) -> float:
    return sum(server.cpu_seconds for server in servers)


def main() -> None:
    """Climb the ladder, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 250, 500, 1000, 2000])
    parser.add_argument("--pace", type=float, default=50.0, help="tokens a second of each stream")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--stream-interval", type=int, default=1, help="tokens to a frame")
    parser.add_argument("--replicas", type=int, default=1, help="processes that share the streams")
    given = parser.parse_args(sys.argv[1:])
    print("streams  carried  lateness p99  late steps  tokens/s a stream  cores")
    for streams in given.streams:
        try:
            one = measured(streams, given.pace, given.seconds, given.stream_interval, given.replicas)
        except TimeoutError:
            print(f"{streams:7}       no  swamped", flush=True)
            continue
        print(
            f"{one.streams:7}  {'yes' if one.held else 'no':>7}  {one.p99_ms:9.2f} ms  {one.late:10.1%}"
            f"  {one.rate:17.1f}  {one.cores:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
