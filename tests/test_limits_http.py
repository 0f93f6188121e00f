"""Limits per key on the wire: what callers are told, and that every exchange is settled."""

import asyncio
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes import FakeLlm, eventually
from tests.programs import serving_program
from tests.redis_server import redis_server
from tests.stack import Stack, running_stack

ASKED = {"model": "plain", "messages": [{"role": "user", "content": "Which port?"}], "max_tokens": 50}
RESERVED = 4 + 8 + 50
"""Eleven letters at three a token, what a message costs, the longest answer."""


async def ask(stack: Stack, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, Any, Any]:
    """Status, body, headers."""
    sent = {**ASKED, **fields} if path.startswith("/v1") else fields
    async with aiohttp.ClientSession() as session, session.post(stack.url + path, json=sent) as reply:
        body = await reply.json() if reply.content_type == "application/json" else await reply.text()
        return reply.status, body, reply.headers


def left(headers: Any, of: str = "tokens") -> int:
    return int(headers[f"x-ratelimit-remaining-{of}"])


async def remaining(stack: Stack) -> int:
    """Tokens left, told by a request that is given back all it reserved."""
    stack.llm.recover()
    stack.llm.fail_with(400, times=1)
    await ask(stack)
    status, _, headers = await ask(stack, max_tokens=1)
    assert status == 200
    return left(headers) + RESERVED - 49


async def test_a_caller_over_the_limit_is_told_when_to_come_back(tmp_path: Path) -> None:
    with running_stack(tmp_path, requests_per_minute=2) as stack:
        first = await ask(stack)
        await ask(stack, path="/chat", message="Which port?", assistant="plain")
        status, body, headers = await ask(stack)
        recorded = stack.recorded()
    assert (first[0], left(first[2], "requests"), first[2]["x-ratelimit-limit-requests"]) == (200, 1, "2")
    assert (status, body["error"]["code"], body["error"]["type"]) == (
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
    )
    assert 1 <= int(headers["Retry-After"]) <= 61
    assert left(headers, "requests") == 0
    assert len(recorded) == 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])
@pytest.mark.parametrize("streams", [True, False])
async def test_every_answer_tells_what_is_left(tmp_path: Path, path: str, streams: bool) -> None:
    with running_stack(tmp_path, tokens_per_minute=5000, tokens_per_day=9000) as stack:
        fields = {"message": "Which port?", "assistant": "plain"} if path == "/chat" else {}
        _, _, headers = await ask(stack, path, stream=streams, **fields)
    assert left(headers, "requests") == 599
    assert 5000 - left(headers) == 9000 - left(headers, "tokens-day") > 0


async def test_tokens_are_reserved_before_any_work_and_corrected_to_the_usage(tmp_path: Path) -> None:
    with running_stack(tmp_path, tokens_per_minute=1000) as stack:
        _, body, headers = await ask(stack)
        assert left(headers) == 1000 - RESERVED
        _, _, headers = await ask(stack)
        assert left(headers) == 1000 - body["usage"]["total_tokens"] - RESERVED
        assert not stack.guard.limits.reserved


async def test_a_key_without_tokens_costs_nothing_and_is_recorded_as_refused(tmp_path: Path) -> None:
    with running_stack(tmp_path, FakeLlm(delay=0.5), tokens_per_minute=RESERVED + 10) as stack:
        asking = asyncio.ensure_future(ask(stack, stream=True))
        await eventually(lambda: stack.llm.running == 1)
        status, body, headers = await ask(stack)
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(headers["Retry-After"]) <= 61
        assert len(stack.llm.requests) == 1
        asking.cancel()
        await eventually(lambda: len(stack.recorded()) == 2)
        assert {str(exchange.outcome) for exchange in stack.recorded()} == {"refused", "abandoned"}


async def test_a_question_that_can_never_fit_is_a_bad_request(tmp_path: Path) -> None:
    with running_stack(tmp_path, tokens_per_minute=40) as stack:
        status, body, headers = await ask(stack)
        assert (status, body["error"]["param"], "Retry-After" in headers) == (400, "max_tokens", False)
        assert (await ask(stack, max_tokens=5))[0] == 200


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("fault", ["fail_with", "die_after", "end_with"])
async def test_an_exchange_that_failed_is_settled(tmp_path: Path, fault: str, streams: bool) -> None:
    with running_stack(tmp_path, tokens_per_minute=1000) as stack:
        how = {"fail_with": 503, "die_after": 3, "end_with": "abort"}[fault]
        getattr(stack.llm, fault)(how)
        await ask(stack, stream=streams)
        assert not stack.guard.limits.reserved
        spent = 1000 - await remaining(stack)
    assert spent == 0 if fault == "fail_with" else 12 <= spent < RESERVED


@pytest.mark.parametrize("begun", [True, False])
async def test_an_exchange_that_was_abandoned_is_settled(tmp_path: Path, begun: bool) -> None:
    llm = FakeLlm(delay=0.2) if begun else FakeLlm()
    if not begun:
        llm.hang_before_first()
    with running_stack(tmp_path, llm, tokens_per_minute=1000) as stack:
        async with aiohttp.ClientSession() as session:
            asking = asyncio.create_task(
                session.post(f"{stack.url}/v1/chat/completions", json={**ASKED, "stream": True}).__aenter__()
            )
            if begun:
                (await asking).close()
            await eventually(lambda: llm.running == 1)
            asking.cancel()
        await eventually(lambda: not stack.guard.limits.reserved and llm.running == 0)
        assert 12 <= 1000 - await remaining(stack) < RESERVED


async def test_an_abstention_spends_no_tokens(tmp_path: Path) -> None:
    with running_stack(tmp_path, tokens_per_minute=5000) as stack:
        stack.shelf.passages = ()
        status, body, _ = await ask(stack, model="tandem")
        assert (status, body["tandem"]["outcome"]) == (200, "abstained")
        assert await remaining(stack) == 5000


def test_services_that_share_a_redis_server_let_no_more_through_than_the_limit(tmp_path: Path) -> None:
    shared = {
        "BUSINESS_API_GUARD__REQUESTS_PER_MINUTE": "20",
        "BUSINESS_API_STORE__URL": "http://127.0.0.1:9",
    }
    nowhere = "http://127.0.0.1:9/v1"
    with redis_server() as server:
        shared |= {"BUSINESS_API_GUARD__LIMITS_URL": server.url, "BUSINESS_API_GUARD__LIMITS_DEADLINE": "20"}
        with (
            serving_program(tmp_path / "a", nowhere, **shared) as one,
            serving_program(tmp_path / "b", nowhere, **shared) as other,
        ):
            statuses = [service.get("/v1/models")[0] for _ in range(15) for service in (one, other)]
            assert (statuses.count(200), statuses.count(429)) == (20, 10)
            server.kill()
            statuses = [one.get("/v1/models")[0] for _ in range(25)]
            assert (statuses.count(200), statuses.count(429)) == (20, 5)
            with urllib.request.urlopen(f"{one.url}/metrics", timeout=30) as reply:
                assert 'tandem_limits_uncounted_total{by="local"} 25.0' in reply.read().decode()
            assert (one.stop(), other.stop()) == (0, 0)
