"""Overload, in virtual time: goodput is kept, keys are fair, the limit finds the server's capacity.

All figures are counts of a deterministic simulation.
"""

from functools import cache

import pytest
from msgspec.structs import replace

from business_api.gate import Rules
from loadtests.overload import FREE, H100, RULES, Callers, Run, Slo

SLO = Slo()
CAPACITY = 38.0
"""Requests per second at which the server's goodput peaks."""
WARM = 20.0


def played(*callers: Callers, seconds: float = 60, rules: Rules = RULES) -> Run:
    run = Run(rules, callers, seconds).play()
    assert (run.gate.running, run.gate.waiting, run.gate.keys) == (0, 0, 0)
    return run


@cache
def peak() -> float:
    return max(played(Callers(rate=rate)).goodput(SLO, WARM) for rate in (CAPACITY - 2, CAPACITY))


@pytest.mark.parametrize(("times", "kept"), [(2, 0.95), (5, 0.90), (10, 0.85)])
def test_goodput_is_kept_when_much_more_comes_in_than_can_be_answered(times: int, kept: float) -> None:
    assert played(Callers(rate=times * CAPACITY)).goodput(SLO, WARM) >= kept * peak()


def test_without_admission_the_same_load_leaves_nothing_good() -> None:
    assert played(Callers(rate=2 * CAPACITY), rules=FREE).goodput(SLO, WARM) < 0.05 * peak()


def test_below_capacity_nobody_is_sent_away() -> None:
    run = played(Callers(rate=0.75 * CAPACITY))
    assert [one for one in run.asked if one.shed is not None] == []
    assert run.attainment(SLO) > 0.99


def test_everyone_is_answered_or_told_when_to_come_back() -> None:
    run = played(Callers(rate=5 * CAPACITY), seconds=30)
    for one in run.asked:
        assert (one.done is None) == (one.shed is not None)
        if one.shed is not None:
            assert one.status in (429, 503)
            assert 1 <= (one.retry_after or 0) <= 60
            assert one.shed <= one.ticket.deadline


@pytest.mark.parametrize("times", [1.5, 2, 5])
def test_who_is_refused_is_refused_at_once_not_after_a_wait(times: float) -> None:
    # few seats and a limit that is often cut: a place less is a long wait more
    small = replace(H100, max_num_seqs=16, step_ms=20.0, step_ms_per_answer=0.5)
    rules = Rules(replace(RULES.bounds, start=16), 256)
    callers = Callers(rate=times * 18, prompt=60, answer=32)
    run = Run(rules, [callers], 60, preset=small, patience=0.75, retrieval=0.002).play()
    refused = [one for one in run.asked if one.at >= WARM and one.shed is not None]
    waited = [one for one in refused if one.shed != one.at]
    assert len(refused) > 100
    assert len(waited) <= 0.01 * len(refused)


def test_a_flooding_key_does_not_take_a_polite_one_its_answers() -> None:
    flood, polite = Callers(rate=10 * CAPACITY, key="flood"), Callers(rate=CAPACITY / 10, key="polite")
    run = played(flood, polite, seconds=80)
    assert run.attainment(SLO, WARM, "polite") >= 0.99
    assert run.goodput(SLO, WARM) >= 0.85 * peak()
    assert {one.status for one in run.asked if one.shed and one.at >= WARM and one.key == "flood"} == {429}


def test_a_higher_class_is_answered_while_a_lower_one_floods() -> None:
    low, high = (
        Callers(rate=10 * CAPACITY, key="batch", rank=2),
        Callers(rate=CAPACITY / 2, key="live", rank=0),
    )
    run = played(low, high)
    assert run.attainment(SLO, WARM, "live") >= 0.99
    assert run.goodput(SLO, WARM, "batch") > 0.1 * CAPACITY


@pytest.mark.parametrize(("seats", "start"), [(256, 16), (64, 512), (8, 64)])
def test_the_limit_finds_how_many_the_server_takes(seats: int, start: int) -> None:
    rules = Rules(replace(RULES.bounds, start=start), 256)
    preset, limits = replace(H100, max_num_seqs=seats), list[int]()
    run = Run(rules, [Callers(rate=2 * CAPACITY)], 120, preset=preset)
    run.on_second = lambda _, now: limits.append(run.gate.places)
    run.play()
    settled = sorted(limits[60:])
    assert 0.8 * seats <= settled[len(settled) // 2] <= max(1.25 * seats, seats + 20)


def test_longer_prompts_do_not_make_the_limit_collapse() -> None:
    before = Callers(rate=2 * CAPACITY, prompt=400, end=60)
    after = Callers(rate=2 * CAPACITY, prompt=3200, begin=60)
    run, limits = Run(RULES, [before, after], 160), list[int]()
    run.on_second = lambda _, now: limits.append(run.gate.places)
    run.play()
    # 48 at once are what this server needs for its best with such prompts
    assert min(limits[60:]) >= 48


def test_a_server_that_refuses_is_asked_less() -> None:
    preset = replace(H100, max_num_seqs=64)
    run = Run(RULES, [Callers(rate=2 * CAPACITY)], 60, preset=preset, most_inside=72).play()
    refused = [one for one in run.asked if one.at >= WARM and one.sent and one.done is None]
    assert len(refused) <= 0.01 * sum(one.at >= WARM and one.done is not None for one in run.asked)
