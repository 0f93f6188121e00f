"""Another model answers when the LLM tier cannot begin: who is asked, when, and what is told of it."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from business_api.errors import (
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    UpstreamUnavailable,
)
from business_api.exchange import Degradation, Message, Prompt
from business_api.transport import InProcess
from business_api.upstream import Upstream
from business_api.upstream.chain import Chain
from business_api.upstream.pool import Pool
from business_api.upstream.replica import Replica
from tests.chains import carried, chain_of, outcomes, small
from tests.fakes import FakeLlm, eventually
from tests.pools import NOBODY, SAID, heard, llm, settings_of
from tests.test_upstream_faults import BEFORE

STEPS = 120
"""More turns of the event loop than both attempts take in one process."""
STOOD_IN = (Degradation.FALLBACK_MODEL,)
FAULTS = BEFORE | {
    "wrong key": (lambda one: one.fail_with(401), "status_401"),
    "no such model": (lambda one: one.fail_with(404), "status_404"),
}
faults = pytest.mark.parametrize(("fail", "outcome"), FAULTS.values(), ids=FAULTS.keys())


@faults
async def test_a_tier_that_cannot_begin_is_stood_in_for(
    fail: Callable[[FakeLlm], None], outcome: str
) -> None:
    primary, other = llm(), small()
    fail(primary)
    async with chain_of(primary, other, retries=0, fallback_after=0.2) as chain:
        said, running = await heard(chain)
        await eventually(lambda: not carried(chain))
    assert said == "Small talk."
    assert running.degraded == STOOD_IN
    assert running.model == "tiny"
    assert outcomes(running) == [("", outcome), ("small/", "answered")]
    assert chain.stood_in == {"small": 1}


async def test_a_tier_that_cannot_be_reached_is_stood_in_for() -> None:
    async with chain_of(NOBODY, small(), retries=0) as chain:
        said, running = await heard(chain)
    assert said == "Small talk."
    assert outcomes(running) == [("", "unreachable"), ("small/", "answered")]


async def test_a_tier_that_answers_is_not_stood_in_for() -> None:
    primary, other = llm(), small()
    async with chain_of(primary, other) as chain:
        said, running = await heard(chain)
    assert (said, running.degraded, outcomes(running)) == (SAID, (), [("", "answered")])
    assert not other.requests
    assert chain.stood_in == {"small": 0}


async def test_its_own_retries_come_first() -> None:
    primary, other = llm(), small()
    primary.fail_with(503, times=1)
    async with chain_of(primary, other) as chain:
        said, running = await heard(chain)
    assert (said, running.degraded) == (SAID, ())
    assert not other.requests


async def test_the_next_one_is_asked_when_the_first_fallback_fails_too() -> None:
    broken, hosted = small(), llm(model="big")
    broken.fail_with(400, "unknown field top_k")  # what this server does not know the others may
    async with chain_of(NOBODY, broken, hosted, retries=0) as chain:
        said, running = await heard(chain)
    assert (said, running.model, running.degraded) == (SAID, "big", STOOD_IN)
    assert outcomes(running) == [("", "unreachable"), ("small/", "status_400"), ("hosted/", "answered")]
    assert chain.stood_in == {"small": 0, "hosted": 1}


async def test_when_all_fail_the_error_of_the_tier_itself_is_told_with_every_attempt() -> None:
    primary, other = llm(), small()
    primary.fail_with(503)
    other.fail_with(500)
    async with chain_of(primary, other, NOBODY, retries=0, knobs={"retries": 0}) as chain:
        with pytest.raises(Overloaded) as caught:
            await heard(chain)
        assert not carried(chain)
    told = caught.value
    assert outcomes(told) == [("", "status_503"), ("small/", "status_500"), ("hosted/", "unreachable")]


@pytest.mark.parametrize(
    ("said", "expected"), [("bad logit_bias", InvalidRequest), ("over the context length", PromptTooLong)]
)
async def test_what_the_caller_must_mend_is_not_asked_of_another(
    said: str, expected: type[Exception]
) -> None:
    primary, other = llm(), small()
    primary.fail_with(400, said)
    async with chain_of(primary, other) as chain:
        with pytest.raises(expected):
            await heard(chain)
    assert not other.requests


async def test_each_is_sent_its_own_key_and_its_own_model() -> None:
    primary, other = llm(), small()
    primary.fail_with(500)
    knobs = {"api_key": "key-of-small", "model": "tiny"}
    async with chain_of(primary, other, api_key="key-of-ours", knobs=knobs) as chain:
        await heard(chain)
    assert {one.headers["authorization"] for one in primary.requests} == {"Bearer key-of-ours"}
    assert [one.headers["authorization"] for one in other.requests] == ["Bearer key-of-small"]
    assert [one.body["model"] for one in other.requests] == ["tiny"]
    assert other.requests[0].body["messages"] == primary.requests[0].body["messages"]


async def test_a_key_of_ours_is_not_sent_to_a_fallback_without_one() -> None:
    other = small()
    async with chain_of(NOBODY, other, api_key="key-of-ours") as chain:
        await heard(chain)
    assert [one.headers.get("authorization") for one in other.requests] == [None]


LONG = Prompt(messages=(Message(role="user", content="x" * 1200),), max_tokens=20)
"""About 410 tokens, by an estimate of 3 bytes each."""


async def test_a_fallback_whose_context_the_prompt_does_not_fit_is_passed_over() -> None:
    narrow = small()
    async with chain_of(NOBODY, narrow, retries=0, knobs={"context_tokens": 400}) as chain:
        with pytest.raises(UpstreamUnavailable) as caught:
            await chain.generate(LONG, {}, "id-1")
    assert not narrow.requests
    assert outcomes(caught.value) == [("", "unreachable"), ("small", "too_long")]


async def test_a_fallback_with_less_context_is_asked_what_it_takes() -> None:
    narrow = small()
    async with chain_of(NOBODY, narrow, retries=0, knobs={"context_tokens": 500}) as chain:
        running = await chain.generate(LONG, {}, "id-1")
        await running.aclose()
    assert len(narrow.requests) == 1


async def test_a_fallback_with_the_same_context_is_the_judge_of_what_fits() -> None:
    other = small()
    prompt = Prompt(messages=(Message(role="user", content="x" * 12000),), max_tokens=20)
    async with chain_of(NOBODY, other, retries=0) as chain:
        running = await chain.generate(prompt, {}, "id-1")
        await running.aclose()
    assert len(other.requests) == 1


async def test_an_answer_of_the_tier_that_breaks_off_is_not_gone_on_with_by_another_model() -> None:
    primary, other = llm(continues=False), small()
    primary.die_after(2)
    async with chain_of(primary, other) as chain:
        with pytest.raises(UpstreamUnavailable):
            await heard(chain)
    assert not other.requests


async def test_an_answer_that_was_begun_in_good_time_may_be_resumed_later() -> None:
    primary = llm(delay=0.15)
    primary.die_after(3, times=1)
    async with chain_of(primary, small(), fallback_after=0.2) as chain:
        said, running = await heard(chain)
    assert (said, running.degraded) == (SAID, (Degradation.RESUMED,))


async def test_a_fallback_that_is_resumed_says_both() -> None:
    other = llm()
    other.die_after(2, times=1)
    async with chain_of(NOBODY, other, retries=0) as chain:
        said, running = await heard(chain)
    assert (said, running.degraded) == (SAID, (*STOOD_IN, Degradation.RESUMED))


@pytest.mark.parametrize("fail", [fail for fail, _ in FAULTS.values()], ids=FAULTS.keys())
async def test_cancelled_at_any_await_nothing_stays_carried(fail: Callable[[FakeLlm], None]) -> None:
    for steps in range(STEPS):
        primary, other = llm(), small()
        fail(primary)
        own = settings_of(retries=0, fallback_after=0.001)
        tiers = [Upstream(Pool([Replica("", InProcess(one))], own), own) for one in (primary, other)]
        chain = Chain(tiers[0], {"small": tiers[1]}, Counter())
        task = asyncio.create_task(heard(chain))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not carried(chain))  # noqa: B023
        await eventually(lambda: primary.running == other.running == 0)  # noqa: B023
