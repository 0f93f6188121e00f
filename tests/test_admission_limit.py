"""The adaptive limit: what makes it fall, what does not, and when it grows."""

import random

import pytest

from business_api.limiting import Bounds, Limit
from business_api.prompt_cost import PromptCost, Sample

BOUNDS = Bounds(start=100, least=4, most=1000, tolerated_ms=250)
HOLD = 5.0


class Desk:
    """First tokens come in, one every 10 ms."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.limit = Limit(bounds)
        self.now = 0.0
        self.chance = random.Random(1)

    def tokens(
        self, number: int, wait_ms: float = 0.0, prompt: int = 400, in_flight: int | None = None
    ) -> int:
        """So many first tokens, each after the time for its prompt and a wait; the limit then."""
        for _ in range(number):
            length = round(prompt * self.chance.uniform(0.5, 1.5))
            ttft = 20 + length * 0.5 + wait_ms + self.chance.uniform(0, 10)
            self.now += 0.01
            used = self.limit.places if in_flight is None else in_flight
            self.limit.observe(Sample(self.now - ttft / 1000, ttft, length), self.now, used, HOLD)
        return self.limit.places


def test_a_limit_that_is_used_grows_up_to_its_bound() -> None:
    assert Desk().tokens(5000) == BOUNDS.most


def test_a_limit_that_is_not_used_stays() -> None:
    assert Desk().tokens(5000, in_flight=50) == BOUNDS.start


def test_a_wait_in_the_servers_queue_brings_the_limit_down_by_the_share_that_waits() -> None:
    desk = Desk(Bounds(start=100, least=4, most=100, tolerated_ms=250))
    desk.tokens(200)
    while (fallen := desk.tokens(1, wait_ms=1000)) == 100:
        pass
    # 1 s of 5 s in flight is spent waiting, a fifth of all that are in flight; the round began before that
    assert 80 <= fallen <= 90


def test_longer_prompts_are_no_reason_to_let_less_through() -> None:
    desk = Desk()
    reached = desk.tokens(500)
    assert desk.tokens(500, prompt=4000) > reached


def test_a_wait_that_cuts_do_not_shorten_is_taken_as_it_is() -> None:
    desk = Desk()
    reached = desk.tokens(300)
    fallen = min(desk.tokens(10, wait_ms=1500) for _ in range(200))
    assert fallen < reached
    assert desk.tokens(1000, wait_ms=1500) >= reached


def test_some_slow_answers_among_quick_ones_are_no_queue() -> None:
    desk = Desk()
    reached = desk.tokens(300)
    for _ in range(500):
        desk.tokens(2)
        last = desk.tokens(1, wait_ms=3000)
    assert last > 2 * reached


def test_one_answer_that_hangs_is_no_queue() -> None:
    desk = Desk()
    reached = desk.tokens(300)
    places = [desk.tokens(40) and desk.tokens(1, wait_ms=120_000) for _ in range(20)]
    assert min(places) >= reached
    assert places[-1] > reached


def test_what_a_prompt_token_costs_is_learned_while_a_queue_comes_and_goes() -> None:
    cost, chance = PromptCost(), random.Random(1)
    for number in range(4000):
        length, wait = chance.randrange(100, 4000), 8000 * (number // 400 % 2)
        cost.learn(Sample(0.0, wait + 0.25 * length, length))
    assert cost.per_token == pytest.approx(0.25, rel=0.25)


def test_a_refusal_cuts_once_until_the_cut_has_taken_effect() -> None:
    desk = Desk()
    for in_flight in (100, 99, 95, 91):
        desk.limit.refused(desk.now, in_flight)
    assert desk.limit.places == 90
    desk.tokens(1)
    desk.limit.refused(desk.now, 90)
    assert desk.limit.places == 81


def test_the_limit_stays_below_what_was_refused_for_a_while_and_then_tries_again() -> None:
    desk = Desk()
    desk.limit.refused(desk.now, 100)
    assert max(desk.tokens(1) for _ in range(1200)) == 99
    assert desk.tokens(3000) > 99


def test_a_server_that_is_away_and_says_503_to_everybody_costs_one_cut() -> None:
    desk = Desk()
    for in_flight in (80, 40, 20, 10, 5, 1):
        desk.limit.refused(desk.now, in_flight)
    assert desk.limit.places == 79


def test_a_refusal_of_the_only_request_says_nothing_of_room() -> None:
    desk = Desk()
    desk.limit.refused(desk.now, 1)
    assert desk.limit.places == 100


def test_the_limit_never_leaves_its_bounds() -> None:
    desk = Desk(Bounds(start=5, least=4, most=6, tolerated_ms=250))
    assert desk.tokens(1000) == 6
    for in_flight in (6, 5, 4):
        desk.limit.refused(desk.now, in_flight)
        desk.tokens(1)
    assert desk.limit.places == 4


def test_what_a_prompt_token_costs_is_learned_under_any_constant_wait() -> None:
    cost, chance = PromptCost(), random.Random(1)
    for _ in range(2000):
        length = chance.randrange(100, 4000)
        cost.learn(Sample(0.0, 700 + 0.25 * length, length))
    assert cost.per_token == pytest.approx(0.25, rel=0.02)
