"""What an HTTP client costs on the way to the LLM: a bare relay over ours, aiohttp and httpx2, in turn.

    python -m loadtests.http_clients          # table, and loadtests/results/http_clients.json

The relays are the same raw ASGI app on uvicorn, which hands on bytes; only the client differs.
"""

import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

import msgspec
import uvicorn
import uvloop
from rich.progress import track

from loadtests.fast_llm import Pace
from loadtests.figures import Row, write
from loadtests.generator import Load
from loadtests.running import Server, printing_its_port, put_on, set_pace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Ask = Callable[[bytes], AsyncGenerator[bytes]]

ROUNDS = 5
DELTAS = 100
CALLERS = 32
STREAMS = 40
ASKED = {"model": "fast", "messages": [{"role": "user", "content": "Which port does it listen on? " * 30}]}
CLIENTS = ("ours", "aiohttp", "httpx2")


def over_ours(url: str) -> Ask:
    """Asks through the business API's own client."""
    from business_api.transport import Network

    root, _, path = url.partition("/v1")
    network = Network.open(root + "/v1", 2.0)

    async def ask(body: bytes) -> AsyncGenerator[bytes]:
        reply = await network.send("POST", path, body, {"Content-Type": "application/json"})
        while piece := await reply.read():
            yield piece

    return ask


def over_aiohttp(url: str) -> Ask:
    """Asks through aiohttp."""
    import aiohttp

    opened: list[aiohttp.ClientSession] = []

    async def ask(body: bytes) -> AsyncGenerator[bytes]:
        if not opened:
            opened.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        async with opened[0].post(url, data=body, headers={"Content-Type": "application/json"}) as got:
            async for piece in got.content.iter_any():
                yield piece

    return ask


def over_httpx2(url: str) -> Ask:
    """Asks through httpx2."""
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=1000)
    client = httpx2.AsyncClient(limits=limits, timeout=60)

    async def ask(body: bytes) -> AsyncGenerator[bytes]:
        headers = {"Content-Type": "application/json"}
        async with client.stream("POST", url, content=body, headers=headers) as got:
            async for piece in got.aiter_raw():
                yield piece

    return ask


def relay(ask: Ask) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An ASGI app that hands every POST on, and the answer back piece by piece."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with aclosing(ask(body)) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def serve(client: str, url: str) -> None:
    """Serve the relay on a free port, which is printed."""
    listener = socket.create_server(("127.0.0.1", 0))
    asks = {"ours": over_ours, "aiohttp": over_aiohttp, "httpx2": over_httpx2}
    config = uvicorn.Config(relay(asks[client](url)), lifespan="off", access_log=False, log_level="error")
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve([listener])


def measure(seconds: float) -> dict[str, dict[str, list[float]]]:
    """CPU microseconds a request and a frame, by client, one figure a round."""
    found: dict[str, dict[str, list[float]]] = {name: {"request": [], "frame": []} for name in CLIENTS}
    with printing_its_port("loadtests.fast_llm") as llm:
        turns = [(number, client) for number in range(ROUNDS) for client in CLIENTS]
        for _, client in track(turns, description="relays in turn"):
            url = f"{llm.url}/v1/chat/completions"
            with printing_its_port("loadtests.http_clients", "serve", client, url) as server:
                found[client]["request"].append(_per_request(llm, server, seconds))
                found[client]["frame"].append(_per_frame(llm, server, seconds))
    return found


def _per_request(llm: Server, server: Server, seconds: float) -> float:
    set_pace(llm, Pace(DELTAS))
    before = server.cpu_seconds
    seen = put_on(Load(url=server.url + "/", body=_raw(ASKED), callers=CALLERS, seconds=seconds))
    return (server.cpu_seconds - before) / seen.all_answers * 1e6


def _per_frame(llm: Server, server: Server, seconds: float) -> float:
    set_pace(llm, Pace(DELTAS, gap_ms=20))
    asked = _raw(ASKED | {"stream": True})
    before = server.cpu_seconds
    load = Load(
        url=server.url + "/",
        body=asked,
        callers=STREAMS,
        seconds=seconds,
        spread_seconds=0.5,
        deltas=DELTAS,
    )
    seen = put_on(load)
    return (server.cpu_seconds - before) / seen.frames * 1e6


def _raw(body: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(body))


def main() -> None:
    """Measure, print, write."""
    found = measure(2.0)
    rows = [
        Row.of(f"relay CPU a {unit}, {client}", "us", "lower", found[client][unit])
        for unit in ("request", "frame")
        for client in CLIENTS
    ]
    write("http_clients", rows, ("aiohttp", "httpx2", "uvicorn", "uvloop", "httptools"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(*sys.argv[2:4]))
    else:
        main()
