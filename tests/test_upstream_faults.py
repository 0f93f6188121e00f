"""Each fault, before and after the first delta, over real sockets: what the caller gets, and the trail."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from business_api.deadlines import HEADER, honour
from business_api.errors import (
    InvalidRequest,
    Overloaded,
    ServiceError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from business_api.exchange import Degradation
from business_api.upstream import Running
from tests.fakes import FakeLlm, eventually
from tests.pools import NOBODY, PROMPT, SAID, heard, llm, pool_of, trail
from tests.reading import deltas_of

Tell = Callable[[FakeLlm], None]

BEFORE: dict[str, tuple[Tell, str]] = {
    "cut off": (lambda one: one.die_after(0), "broke_off"),
    "silent": (lambda one: one.hang_before_first(), "late"),
    "error frame": (lambda one: one.error_frame_after(0), "broke_off"),
    "malformed frame": (lambda one: one.malformed_frame_after(0), "broke_off"),
    "429": (lambda one: one.fail_with(429), "status_429"),
    "500": (lambda one: one.fail_with(500), "status_500"),
    "502": (lambda one: one.fail_with(502), "status_502"),
    "503": (lambda one: one.fail_with(503), "status_503"),
    "504": (lambda one: one.fail_with(504), "status_504"),
    "500 in shutdown": (lambda one: one.fail_with(500, SHUTDOWN), "draining"),
    "503 in shutdown": (lambda one: one.fail_with(503, SHUTDOWN), "draining"),
}
SHUTDOWN = "cannot schedule new futures after shutdown"
AFTER: dict[str, tuple[Tell, str]] = {
    "cut off": (lambda one: one.die_after(2), "broke_off"),
    "silent": (lambda one: one.hang_after(2), "stalled"),
    "error frame": (lambda one: one.error_frame_after(2), "broke_off"),
    "malformed frame": (lambda one: one.malformed_frame_after(2), "broke_off"),
    "aborted": (lambda one: one.end_with("abort"), "broke_off"),
    "done without finish": (lambda one: one.done_without_finish(), "broke_off"),
}
KNOBS = {"first_delta_deadline": 0.4, "delta_deadline": 0.4}

before = pytest.mark.parametrize(("tell", "outcome"), BEFORE.values(), ids=BEFORE.keys())
after = pytest.mark.parametrize(("tell", "outcome"), AFTER.values(), ids=AFTER.keys())


async def answered_in_spite_of(tell: Tell, outcome: str, broken: FakeLlm, well: FakeLlm) -> Running:
    """An answer whose replica failed: whole, of the other one, and nothing is left running."""
    tell(broken)
    async with pool_of(broken, well, **KNOBS) as upstream:
        said, running = await heard(upstream)
        assert list(upstream.pool.outstanding().values()) == [0.0, 0.0]
        await eventually(lambda: broken.running == 0)
    assert said == SAID
    assert trail(running.attempts) == [("a", outcome), ("b", "answered")]
    return running


@before
async def test_what_fails_before_the_first_delta_is_asked_elsewhere(tell: Tell, outcome: str) -> None:
    broken, well = llm(), llm()
    running = await answered_in_spite_of(tell, outcome, broken, well)
    assert running.degraded == ()
    assert len(broken.requests) == len(well.requests) == 1


async def test_a_server_that_is_not_there_is_passed_over() -> None:
    async with pool_of(NOBODY, llm()) as upstream:
        for _ in range(4):
            said, running = await heard(upstream)
            assert said == SAID
        assert upstream.pool.out() == {"a": "unreachable"}
    assert trail(running.attempts) == [("b", "answered")]


@before
async def test_what_fails_everywhere_is_told_with_its_trail(tell: Tell, outcome: str) -> None:
    servers = llm(), llm(), llm()
    for one in servers:
        tell(one)
    async with pool_of(*servers, **KNOBS) as upstream:
        with pytest.raises(ServiceError) as caught:
            await heard(upstream)
        assert set(upstream.pool.outstanding().values()) == {0.0}
    assert caught.value.status in (503, 504)
    asked = 2 if outcome == "status_500" else 3  # the prompt may be what kills: it is not carried to a third
    told = trail(caught.value.attempts)
    assert told[0][0] == "a"
    assert len({replica for replica, _ in told}) == asked  # each one once
    assert [how for _, how in told] == [outcome] * asked


@after
async def test_a_plain_answer_that_breaks_off_is_gone_on_with_elsewhere(tell: Tell, outcome: str) -> None:
    running = await answered_in_spite_of(tell, outcome, llm(), llm())
    assert running.degraded == (Degradation.RESUMED,)
    assert running.finish_reason == "stop"


MORE_THAN_TEXT: list[dict[str, Any]] = [
    {"logprobs": True},
    {"response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]},
]


@after
@pytest.mark.parametrize("sampling", MORE_THAN_TEXT, ids=["logprobs", "JSON", "tools"])
async def test_an_answer_that_is_more_than_text_is_never_gone_on_with(
    tell: Tell, outcome: str, sampling: dict[str, Any]
) -> None:
    broken, well = llm(pieces=None, answer='{"port": 8001, "host": "a b c d e f"}'), llm()
    tell(broken)
    async with pool_of(broken, well, **KNOBS) as upstream:
        running = await upstream.generate(PROMPT, sampling, "id-1")
        with pytest.raises((UpstreamUnavailable, UpstreamTimeout)):
            await deltas_of(running)
        await running.aclose()
        assert list(upstream.pool.outstanding().values()) == [0.0, 0.0]
    assert trail(running.attempts) == [("a", outcome)]
    assert well.requests == []


async def test_a_busy_server_is_asked_again_when_it_said_and_another_one_meanwhile() -> None:
    busy, well = llm(), llm()
    busy.fail_with(503, headers={"Retry-After": "60"})
    async with pool_of(busy, well) as upstream:
        for _ in range(5):
            assert (await heard(upstream))[0] == SAID
    assert len(busy.requests) == 1


async def test_a_single_server_that_is_busy_is_asked_again_after_a_pause() -> None:
    alone = llm()
    alone.fail_with(503, times=2)
    async with pool_of(alone) as upstream:
        said, running = await heard(upstream)
    assert said == SAID
    assert [outcome for _, outcome in trail(running.attempts)] == ["status_503", "status_503", "answered"]


async def test_a_wait_longer_than_the_caller_has_is_passed_on_to_the_caller() -> None:
    alone = llm()
    alone.fail_with(503, headers={"Retry-After": "30"})
    async with pool_of(alone) as upstream:
        with pytest.raises(Overloaded) as caught:
            await heard(upstream)
    assert caught.value.retry_after == 30
    assert len(alone.requests) == 1


async def test_the_callers_deadline_ends_the_wait_and_is_passed_on() -> None:
    silent = llm()
    silent.hang_before_first()
    async with pool_of(silent) as upstream:
        with pytest.raises(UpstreamTimeout) as caught:
            await asyncio.create_task(_with_deadline(upstream, "400"))
    assert trail(caught.value.attempts) == [("a", "deadline")]
    (asked,) = silent.requests
    assert 0 < int(asked.headers[HEADER.lower()]) <= 400


async def test_nothing_is_sent_when_the_deadline_has_gone() -> None:
    server = llm()
    async with pool_of(server) as upstream:
        with pytest.raises(UpstreamTimeout):
            await asyncio.create_task(_with_deadline(upstream, "1", pause=0.01))
    assert server.requests == []


async def _with_deadline(upstream: Any, given: str, pause: float = 0.0) -> None:
    honour(given)
    await asyncio.sleep(pause)
    await heard(upstream)


@pytest.mark.parametrize("given", ["", "0", "-5", "1.5", "soon", "9" * 30, "٣"])
def test_a_deadline_that_is_no_whole_number_is_refused_by_name(given: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        honour(given)
    assert caught.value.param == HEADER
