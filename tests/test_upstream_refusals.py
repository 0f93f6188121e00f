"""Statuses that say no: what the caller must mend, what the operator must, and what only one server says."""

import asyncio

import pytest

from business_api.errors import Refused, UpstreamUnavailable
from tests.pools import SAID, heard, llm, pool_of, trail

TOO_LONG = "the context length is exceeded"


@pytest.mark.parametrize(("status", "said"), [(400, "no"), (422, "no"), (413, TOO_LONG)])
async def test_what_the_caller_must_mend_is_not_asked_again(status: int, said: str) -> None:
    broken, well = llm(), llm()
    broken.fail_with(status, said)
    async with pool_of(broken, well) as upstream:
        with pytest.raises(Refused) as caught:
            await heard(upstream)
        assert upstream.pool.out() == {}
    assert trail(caught.value.attempts) == [("a", f"status_{status}")]
    assert well.requests == []


UNFIT = pytest.mark.parametrize("status", [307, 401, 403, 404, 405, 408])


@UNFIT
async def test_a_server_that_the_operator_must_mend_is_left_and_put_out(status: int) -> None:
    broken, well = llm(), llm()
    broken.fail_with(status)
    async with pool_of(broken, well, choice="least_tokens", model="fake") as upstream:
        answers = [await heard(upstream) for _ in range(20)]
        assert upstream.pool.out() == {"a": f"status_{status}"}
    assert [said for said, _ in answers] == [SAID] * 20
    assert len(broken.requests) == 2


@UNFIT
async def test_two_servers_that_refuse_do_not_hide_the_third(status: int) -> None:
    servers = llm(), llm(), llm(first_delay=0.2)
    for one in servers[:2]:
        one.fail_with(status)
    async with pool_of(*servers, choice="least_tokens", model="fake") as upstream:
        answers = await asyncio.gather(*(heard(upstream) for _ in range(3)))
        answers += [await heard(upstream) for _ in range(12)]
        assert set(upstream.pool.out()) == {"a", "b"}
    assert [said for said, _ in answers] == [SAID] * 15


async def test_a_server_that_fails_and_one_that_refuses_do_not_hide_the_third() -> None:
    failing, refusing, well = llm(), llm(), llm()
    failing.fail_with(502)
    refusing.fail_with(403)
    async with pool_of(failing, refusing, well) as upstream:
        for _ in range(3):
            assert (await heard(upstream))[0] == SAID


@pytest.mark.parametrize("status", [403, 404])
async def test_a_few_questions_that_every_server_refuses_put_nobody_out(status: int) -> None:
    servers = llm(), llm(), llm()
    for one in servers:
        one.fail_with(status)
    async with pool_of(*servers) as upstream:
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable):
                await heard(upstream)
        assert upstream.pool.out() == {}


async def test_a_request_that_is_too_large_for_the_way_is_no_matter_of_the_context() -> None:
    small, other = llm(), llm()
    small.fail_with(413)
    async with pool_of(small, other) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await heard(upstream)
    assert other.requests == []


@UNFIT
async def test_the_only_server_that_the_operator_must_mend_is_asked_once_a_question(status: int) -> None:
    broken = llm()
    async with pool_of(broken) as upstream:
        await heard(upstream)
        broken.fail_with(status)
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable) as caught:
                await heard(upstream)
            assert trail(caught.value.attempts) == [("a", f"status_{status}")]
        broken.recover()
        assert (await heard(upstream))[0] == SAID
        assert upstream.pool.out() == {}
