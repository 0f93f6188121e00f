"""What callers and records see of retries, deadlines and resumed answers, over HTTP."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from business_api.deadlines import HEADER
from business_api.exchange import Degradation, Outcome
from tests.fakes import FakeLlm
from tests.pools import trail
from tests.stack import Stack, running_stack

ASKED = {"model": "plain", "messages": [{"role": "user", "content": "Where?"}]}


async def ask(stack: Stack, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=ASKED | fields, headers=headers) as reply,
    ):
        return reply.status, await reply.text()


async def test_a_retry_is_told_in_the_answer_and_in_the_record(tmp_path: Path) -> None:
    llm = FakeLlm("At home.")
    llm.fail_with(503, times=1)
    with running_stack(tmp_path, llm) as stack:
        status, text = await ask(stack)
        (exchange,) = stack.recorded()
    assert status == 200
    told = msgspec.json.decode(text)["tandem"]["attempts"]
    assert [(one["outcome"], one["ms"] >= 0) for one in told] == [("status_503", True), ("answered", True)]
    assert [how for _, how in trail(exchange.attempts)] == ["status_503", "answered"]
    assert exchange.degraded == []


async def test_an_answer_that_failed_is_recorded_with_its_attempts(tmp_path: Path) -> None:
    llm = FakeLlm()
    llm.fail_with(502)
    with running_stack(tmp_path, llm) as stack:
        status, _ = await ask(stack)
        (exchange,) = stack.recorded()
    assert status == 503
    assert exchange.outcome is Outcome.FAILED
    assert [how for _, how in trail(exchange.attempts)] == ["status_502"] * 3


async def test_a_resumed_stream_is_whole_and_says_so(tmp_path: Path) -> None:
    llm = FakeLlm(pieces=["The", " port", " is", " 8001."], continues=True)
    llm.die_after(2, times=1)
    with running_stack(tmp_path, llm) as stack:
        _, text = await ask(stack, stream=True)
        (exchange,) = stack.recorded()
    frames = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    chunks = [msgspec.json.decode(frame) for frame in frames[:-1]]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said) == exchange.answer == "The port is 8001."
    assert frames[-1] == "[DONE]"
    assert chunks[-1]["tandem"]["degraded"] == ["resumed"]
    assert exchange.outcome is Outcome.ANSWERED
    assert exchange.degraded == [Degradation.RESUMED]
    assert [how for _, how in trail(exchange.attempts)] == ["broke_off", "answered"]


@pytest.mark.parametrize("said", [0, 2], ids=["before the first content", "in the middle"])
async def test_the_callers_deadline_is_a_504_with_a_record(tmp_path: Path, said: int) -> None:
    llm = FakeLlm(pieces=["The", " port", " is", " 8001."])
    llm.hang_after(said) if said else llm.hang_before_first()
    with running_stack(tmp_path, llm) as stack:
        status, text = await ask(stack, {HEADER: "300"})
        (exchange,) = stack.recorded()
    assert status == 504
    error = msgspec.json.decode(text)["error"]
    assert (error["code"], error["message"]) == ("upstream_timeout", "the time for the whole answer was over")
    assert [how for _, how in trail(exchange.attempts)] == ["deadline"]


async def test_a_deadline_holds_for_its_own_request_only(tmp_path: Path) -> None:
    with running_stack(tmp_path, FakeLlm("Hi.", first_delay=0.4)) as stack:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            url = f"{stack.url}/v1/chat/completions"
            async with session.post(url, json=ASKED, headers={HEADER: "100"}) as reply:
                assert reply.status == 504
            async with session.post(url, json=ASKED) as reply:
                assert reply.status == 200


async def test_a_deadline_does_not_hold_for_the_next_request_of_a_pipeline(tmp_path: Path) -> None:
    body = msgspec.json.encode(ASKED)

    def request(more: str) -> bytes:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Content-Type: application/json\r\n{more}\r\n".encode() + body

    with running_stack(tmp_path, FakeLlm("Hi.", first_delay=0.3)) as stack:
        parts = urlsplit(stack.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request(f"{HEADER}: 500\r\n") + request("Connection: close\r\n"))
        said = await reader.read()
        writer.close()
    assert said.count(b"HTTP/1.1 200 ") == 2


async def test_a_deadline_that_is_no_number_is_a_400_that_names_it(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        status, text = await ask(stack, {HEADER: "soon"})
    assert status == 400
    assert msgspec.json.decode(text)["error"]["param"] == HEADER
