"""The open-loop load generator: what it draws, what it sees, and when it calls itself too late."""

import pytest

from loadtests.answer_text import expected, said_of
from loadtests.offered import (
    Asked,
    Ended,
    Flow,
    Offered,
    Outcome,
    Slo,
    attainment,
    drawn,
    ending_of,
    goodput_of,
    lag,
)
from loadtests.offering import body_of, checked, offered
from loadtests.open_loop import Callers
from loadtests.simulated_faults import Fault, Order
from loadtests.simulated_llm import simulated

SLO = Slo(ttft_ms=100, total_ms=1000)
TOKENS = 12


def load(
    url: str, *, rate: float = 100.0, seconds: float = 0.3, stream: bool = True, **more: object
) -> Offered:
    body = body_of("simulated", TOKENS, stream=stream)
    return offered(url, body, rate, seconds, **({"texts": True} | more))


def test_what_is_drawn_follows_from_the_seed_and_has_the_rate_of_each_flow() -> None:
    flows = (Flow(rate=20.0), Flow(rate=200.0))
    one, same, other = (drawn(load("http://x", seconds=50.0, flows=flows, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert [one.due for one in one] == sorted(one.due for one in one)
    for number, flow in enumerate(flows):
        count = sum(one.flow == number for one in one)
        assert abs(count - flow.rate * 50) < 5 * (flow.rate * 50) ** 0.5


@pytest.mark.parametrize("stream", [True, False])
async def test_every_question_is_another_one_and_its_answer_is_what_the_server_says(stream: bool) -> None:
    async with simulated("quick") as server:
        outcome = await Callers(load(server.url, stream=stream)).run()
        assert server.counts.requests == len(outcome.asked) > 0
    body = body_of("simulated", TOKENS, stream=stream)
    assert {one.ended for one in outcome.asked} == {"whole"}
    assert [one.text for one in outcome.asked] == [expected(body, one.serial, 40) for one in outcome.asked]
    assert len({one.serial for one in outcome.asked}) == len(outcome.asked)
    assert all(0 < one.lag_ms <= one.ttft_ms <= one.end_ms for one in outcome.asked)


@pytest.mark.parametrize(
    ("fault", "ended"),
    [
        (Fault(kind="status", status=503), "refused"),
        (Fault(kind="error", after=3), "flagged"),
        (Fault(kind="abort", after=3), "truncated"),
        (Fault(kind="reset", after=3), "broken"),
        (Fault(kind="cut", after=3), "broken"),
        (Fault(kind="hang", after=3), "unanswered"),
    ],
)
async def test_each_way_to_end_is_told_from_the_others(fault: Fault, ended: Ended) -> None:
    async with simulated("quick") as server:
        server.obey(Order(fault=fault))
        outcome = await Callers(load(server.url, seconds=0.1, patience=0.5)).run()
    assert {one.ended for one in outcome.asked} == {ended}
    assert attainment(outcome.asked, SLO) == 0.0


async def test_callers_who_hang_up_leave_nothing_running() -> None:
    async with simulated("quick") as server:
        server.obey(Order(frozen=True))
        outcome = await Callers(load(server.url, leave=(0.01, 0.05))).run()
        assert {one.ended for one in outcome.asked} == {"left"}
        server.obey(Order(frozen=False))
    assert server.counts.left == len(outcome.asked)


async def test_nobody_there_is_a_broken_answer() -> None:
    outcome = await Callers(load("http://127.0.0.1:9", seconds=0.1)).run()
    assert {one.ended for one in outcome.asked} == {"broken"}


def asked(due: float, end_ms: float, ended: Ended = "whole", lag_ms: float = 0.1) -> Asked:
    return Asked(flow=0, serial=1, due=due, ttft_ms=50, end_ms=end_ms, ended=ended, lag_ms=lag_ms)


def test_what_was_never_answered_counts_against_attainment() -> None:
    outcomes = [asked(0, 200), asked(0, 1200), asked(0, 200, "refused"), asked(0, 0, "unanswered")]
    assert attainment(outcomes, SLO) == 0.25


def test_goodput_counts_what_ended_in_the_window_whenever_it_was_asked() -> None:
    outcomes = [asked(0.5, 700), asked(0.5, 300), asked(2.9, 200), asked(1.5, 100, "flagged")]
    assert goodput_of(outcomes, SLO, 1.0, 3.0) == 0.5


def test_a_run_whose_generator_was_late_is_void() -> None:
    late = Outcome(0.0, [asked(0, 100, lag_ms=50.0)] * 10)
    assert lag(late) == 50.0
    assert "50 ms late" in checked(late)[1]
    assert checked(Outcome(0.0, [asked(0, 100)]))[1] == ""


def test_a_stream_without_an_end_or_a_reason_is_no_whole_answer() -> None:
    said = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    done = b"data: [DONE]\n\n"
    assert ending_of(200, said + end + done) == "whole"
    assert ending_of(200, said + done) == "truncated"
    assert ending_of(200, said + end) == "truncated"


def test_an_answer_tells_its_attempts_and_whether_it_was_gone_on_with() -> None:
    tandem = (
        b'{"tandem":{"degraded":["resumed"],"attempts":[{"outcome":"broke_off"},{"outcome":"answered"}]}}'
    )
    said = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choi\n\ndata: ' + tandem + b"\n\n"
    assert said_of(said) == ("a", ("broke_off", "answered"), True)
