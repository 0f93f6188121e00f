"""A fake vLLM server with the timing of a real one: continuous batching, prefill, KV cache, queue, faults.

    python -m loadtests.simulated_llm --preset h100-8b --replicas 2     # prints their URLs, one a line
    curl -X POST URL/control -d '{"slow": 3}'

In process: `async with simulated("quick") as server:` with `server.url`, `server.counts`, `server.obey(...)`.
Several replicas are processes of their own; `GET /control` tells a replica's pid, for SIGSTOP and SIGKILL.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import msgspec
import psutil

from loadtests.running import ROOT, Server
from loadtests.simulated_batching import Preset, presets
from loadtests.simulated_faults import Fault, Order
from loadtests.simulated_replica import Replica

START_SECONDS = 30


@contextlib.asynccontextmanager
async def simulated(
    preset: str | Preset = "quick",
    *,
    port: int = 0,
    faults: tuple[Fault, ...] = (),
    max_num_queued: int | None = None,
    keep_alive: float = 5.0,
) -> AsyncIterator[Replica]:
    """A running server in this event loop. Raises KeyError when there is no such preset."""
    known = presets()[preset] if isinstance(preset, str) else preset
    server = Replica(known, max_num_queued=max_num_queued, keep_alive=keep_alive)
    for fault in faults:
        server.obey(Order(fault=fault))
    await server.start(port)
    try:
        yield server
    finally:
        await server.aclose()


@contextlib.contextmanager
def replicas(number: int, *arguments: str) -> Iterator[list[Server]]:
    """So many servers, processes that end with this one. `arguments` as on the command line."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_replica(arguments)) for _ in range(number)]


@contextlib.contextmanager
def _replica(arguments: tuple[str, ...]) -> Iterator[Server]:
    command = [sys.executable, "-m", "loadtests.simulated_llm", "--with-parent", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as child:
        assert child.stdout is not None
        try:
            url = child.stdout.readline().strip().decode()
            if not url:
                raise RuntimeError("a simulated LLM server did not start")
            yield Server(url, psutil.Process(child.pid))
        finally:
            child.kill()


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.simulated_llm", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; replicas take the next ones")
    parser.add_argument("--preset", default="h100-8b", choices=sorted(presets()))
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="change the preset")
    parser.add_argument("--max-num-queued-reqs", type=int)
    parser.add_argument("--shutdown-timeout", type=float, default=0.0, help="seconds to drain at SIGTERM")
    parser.add_argument("--keep-alive", type=float, default=5.0, help="seconds that connections may be idle")
    parser.add_argument("--with-parent", action="store_true", help="end when stdin is closed")
    return parser.parse_args(arguments)


def chosen(given: argparse.Namespace) -> Preset:
    """The preset with what `--set` changes. Raises msgspec.ValidationError."""
    changes = dict(change.split("=", 1) for change in given.set)
    known = msgspec.to_builtins(presets()[given.preset])
    return msgspec.convert(known | changes, type=Preset, strict=False)


async def serve(given: argparse.Namespace) -> None:
    """Serve until SIGTERM, then drain."""
    server = Replica(chosen(given), max_num_queued=given.max_num_queued_reqs, keep_alive=given.keep_alive)
    await server.start(given.port)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.drain, given.shutdown_timeout)
    loop.add_signal_handler(signal.SIGINT, server.drain, 0.0)
    if given.with_parent:
        loop.add_reader(sys.stdin.fileno(), _follow_parent, server)
    print(server.url, flush=True)
    await server.stopped.wait()
    await server.aclose()


def _follow_parent(server: Replica) -> None:
    if not os.read(sys.stdin.fileno(), 1):
        server.die()


def main() -> None:
    """Serve here; or start replicas, hand SIGTERM on to them and wait for their end."""
    given = options(sys.argv[1:])
    if given.replicas == 1:
        import uvloop

        uvloop.run(serve(given))
        return
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(given.replicas):
            port = str(given.port + number if given.port else 0)
            arguments = (*sys.argv[1:], "--replicas", "1", "--port", port)
            servers.append(stack.enter_context(_replica(arguments)))
            print(servers[-1].url, flush=True)

        def drain(*_: object) -> None:
            for server in servers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    server.process.terminate()

        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGINT, drain)
        psutil.wait_procs([server.process for server in servers])


if __name__ == "__main__":
    main()
