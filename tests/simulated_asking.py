"""Asks the simulated LLM server, as its tests do."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from loadtests.simulated_batching import presets
from loadtests.simulated_faults import Order
from loadtests.simulated_replica import Replica

QUICK = presets()["quick"]
HELD = msgspec.structs.replace(QUICK, step_ms=20)
ASKED = {"messages": [{"role": "user", "content": "Which port does the LLM server listen on?"}]}
STREAM = ASKED | {"stream": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def asking(
    server: Replica, body: dict[str, Any], **headers: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as session, chat(session, server, body, **headers) as reply:
        yield reply


@asynccontextmanager
async def asking_frozen(server: Replica) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream whose status is there and whose first token is not, until the server thaws."""
    server.obey(Order(frozen=True))
    async with asking(server, STREAM) as reply:
        assert reply.status == 200
        yield reply


def chat(session: aiohttp.ClientSession, server: Replica, body: dict[str, Any], **headers: str) -> Any:
    return session.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)


async def payloads(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The SSE payloads, [DONE] too."""
    async for line in reply.content:
        if line.startswith(b"data: "):
            yield line[6:].strip()


async def heard(server: Replica, body: dict[str, Any] = STREAM) -> list[bytes]:
    async with asking(server, body) as reply:
        assert reply.status == 200
        return [payload async for payload in payloads(reply)]


def delta(payload: bytes) -> str:
    choices = json.loads(payload)["choices"]
    return str(choices[0]["delta"].get("content", "")) if choices else ""


def text(found: list[bytes]) -> str:
    return "".join(delta(payload) for payload in found if payload != b"[DONE]" and b'"error"' not in payload)


async def whole(server: Replica, body: dict[str, Any] = ASKED) -> dict[str, Any]:
    async with asking(server, body) as reply:
        found: dict[str, Any] = await reply.json()
        return found


async def page(server: Replica, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(server.url + path) as reply:
        return reply.status, await reply.text()


async def metric(server: Replica, name: str) -> float:
    found = re.search(rf"^{re.escape(name)}{{.*?}} (\S+)$", (await page(server, "/metrics"))[1], re.MULTILINE)
    assert found, name
    return float(found[1])


def question(body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)


async def ordered(server: Replica, order: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.url + "/control", json=order) as reply,
    ):
        return reply.status, await reply.json()
