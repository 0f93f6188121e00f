"""What callers and records see of a service that is stopped before their answers have ended."""

import asyncio
import signal
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.fakes import FakeLlm, eventually, serving
from tests.fleet import PLAIN
from tests.programs import serving_program

ASKED = {"model": "plain", "messages": [{"role": "user", "content": "Say it."}]}


async def ask(url: str, **fields: Any) -> tuple[int, str, str]:
    """Status, request id and body."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=ASKED | fields) as reply,
    ):
        return reply.status, reply.headers["X-Request-Id"], await reply.text()


@pytest.mark.parametrize("signals", [1, 2], ids=["in vain until the deadline", "twice"])
async def test_who_is_cut_off_is_told_so(tmp_path: Path, signals: int) -> None:
    llm = FakeLlm(pieces=["word "] * 10_000, delay=0.05)
    (tmp_path / "assistants.toml").write_text(PLAIN)
    more = {
        "BUSINESS_API_ASSISTANTS": str(tmp_path / "assistants.toml"),
        "BUSINESS_API_STOP_DEADLINE": "0.5" if signals == 1 else "60",
    }
    with serving(llm) as url, serving_program(tmp_path, f"{url}/v1", **more) as service:
        asked = [asyncio.create_task(ask(service.url, stream=stream)) for stream in (False, True)]
        await eventually(lambda: llm.running == 2, 30)
        for _ in range(signals):
            service.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
        assert await asyncio.to_thread(service.process.wait, 60) == 0
        (status, one, body), (begun, other, events) = await asyncio.gather(*asked)
    said = "the service is stopping"
    told = {"message": said, "type": "server_error", "code": "unavailable", "param": None}
    assert (status, msgspec.json.decode(body)["error"]) == (503, told)
    last = msgspec.json.decode(events.rstrip().rpartition("data: ")[2])
    assert (begun, last["error"], last["tandem"]["outcome"]) == (200, told, "failed")
    assert "Exception in ASGI application" not in service.log.read_text()
    with sqlite3.connect(tmp_path / "exchanges.sqlite") as store:
        kept = store.execute("SELECT id, outcome, error FROM exchanges").fetchall()
    assert sorted(kept) == sorted((number, "failed", "unavailable") for number in (one, other))
