"""The pace of answers under way: when fewer are let through at once, and when that is not worth it."""

from msgspec.structs import replace

from business_api.token_pace import ROUND, WORTH, Answered, TokenPace
from loadtests.overload import RULES, Callers, Run, Slo
from loadtests.simulated_batching import presets

LONG = Callers(rate=76, prompt=3200)
SLO = Slo()


class Server:
    """Says a token to each of n answers in `step + each * n` ms; `places` follow what the pace says."""

    def __init__(self, bound_ms: float, step: float, each: float, places: float = 100) -> None:
        self.pace, self.step, self.each, self.places = TokenPace(bound_ms), step, each, places
        self.now = 0.0

    @property
    def ms_per_token(self) -> float:
        return self.step + self.each * self.places

    def rounds(self, number: int) -> float:
        for _ in range(number * ROUND):
            self.now += 0.1
            share = self.pace.observe(
                Answered(self.now - 0.05, self.ms_per_token), self.now, int(self.places)
            )
            self.places *= share or 1.0
        return self.places


def test_fewer_run_at_once_until_the_bound_is_kept() -> None:
    server = Server(bound_ms=25, step=5, each=0.5)
    assert 35 <= server.rounds(20) <= 40.5
    assert server.ms_per_token <= 25.5


def test_a_pace_within_the_bound_changes_nothing() -> None:
    server = Server(bound_ms=70, step=5, each=0.5)
    assert server.rounds(20) == 100
    assert not server.pace.full


def test_near_the_bound_no_more_are_let_through() -> None:
    server = Server(bound_ms=57, step=5, each=0.5)
    assert server.rounds(2) == 100
    assert server.pace.full


def test_a_bound_that_cannot_be_kept_costs_no_more_than_half_of_the_tokens() -> None:
    server = Server(bound_ms=10, step=20, each=0.1)
    rate = server.places / server.ms_per_token
    server.rounds(50)
    assert server.places / server.ms_per_token >= 0.9 * WORTH * rate


def test_answers_begun_before_a_cut_say_nothing_of_it() -> None:
    pace = TokenPace(20)
    told = [pace.observe(Answered(1.0, 40), 10.0, 100) for _ in range(5 * ROUND)]
    assert [share for share in told if share is not None] == [0.5]


def test_a_few_answers_that_were_read_slowly_do_not_matter() -> None:
    pace = TokenPace(20)
    paces = [15.0, 15.0, 900.0] * ROUND
    assert {pace.observe(Answered(float(now), each), now + 5.0, 50) for now, each in enumerate(paces)} == {
        None
    }


def test_with_a_bound_answers_of_long_prompts_keep_their_pace_at_the_same_throughput() -> None:
    def played(pace_ms: float) -> Run:
        bounds = replace(RULES.bounds, start=16, pace_ms=pace_ms)
        return Run(replace(RULES, bounds=bounds), [LONG], 200, preset=presets()["h100-8b"]).play()

    bound, free = played(60), played(float("inf"))
    assert bound.goodput(SLO, 100) > 2 * free.goodput(SLO, 100)
    done = [sum(one.done is not None and one.at >= 100 for one in run.asked) for run in (bound, free)]
    assert done[0] > 0.9 * done[1]
