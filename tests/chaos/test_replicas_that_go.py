"""LLM servers that are killed, stand still, or are restarted while callers ask. Counts, never times."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest

from loadtests.answer_text import expected
from loadtests.offered import Asked
from loadtests.offering import body_of, offered, offering
from loadtests.running import fetched, waited_for
from tests.chaos.tier import QUIET, Tier, said_to, tier

pytestmark = pytest.mark.chaos

SLOW = ("step_ms=10", "prefill_tokens_per_second=1000", "prefix_caching=false", "model=fast")
TOKENS = 40
PATIENT = {
    "GUARD__REQUESTS_PER_MINUTE": "1000000",
    "LLM__FIRST_DELTA_DEADLINE": "2",
    "LLM__RETRY_FLOOR": "50",
}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Tier]:
    with tier(tmp_path, 3, *SLOW, **PATIENT) as found:
        yield found


def under_load(running: Tier, disturb: Callable[[], None], rate: float = 25.0) -> list[Asked]:
    """What became of all questions that were asked while this was done, and for a while after it."""
    load = offered(running.program.url, body_of("plain", TOKENS), rate, 9.0, texts=True, patience=60.0)
    with offering(load) as run:
        run.wait_until(1.5)
        disturb()
        return run.ended().asked


def wrong(asked: list[Asked]) -> list[Asked]:
    """Answers that are not what an unbroken stream says."""
    body = body_of("plain", TOKENS)
    return [one for one in asked if one.ended != "whole" or one.text != expected(body, one.serial)]


def test_killed_replicas_cost_no_caller_a_character(running: Tier) -> None:
    def kill_two() -> None:
        for number in (0, 1):
            running.fleet.kill(number)
            running.fleet.start(number)

    asked = under_load(running, kill_two)
    assert wrong(asked) == []
    assert any(one.resumed for one in asked)
    assert running.fleet.counts().foreign == 0


def test_a_rolling_restart_of_all_replicas_fails_and_cuts_nothing(running: Tier) -> None:
    def none_is_out() -> bool:
        return not msgspec.json.decode(fetched("GET", running.program.url, "/readyz")[1]).get("out")

    def renew_all() -> None:
        for number in range(3):
            running.fleet.renew(number)
            waited_for(none_is_out)

    asked = under_load(running, renew_all)
    assert wrong(asked) == []
    assert {outcome for one in asked for outcome in one.trail} <= {"answered", "draining", "unreachable"}


def test_a_replica_that_stands_still_is_passed_over_by_all_who_have_heard_nothing(tmp_path: Path) -> None:
    still, serials = QUIET | {"LLM__EJECT_AFTER": "2"}, count()
    with tier(tmp_path, 2, **still) as running:
        running.ask(next(serials), stream=True)
        with running.fleet.stopped(0):
            heard = [
                (serial := next(serials), running.ask(serial, stream=bool(serial % 2))) for _ in range(8)
            ]
        assert [(one.ended, one.text) for _, one in heard] == [
            ("whole", said_to(serial)) for serial, _ in heard
        ]
        trails = Counter(tuple(one.trail) for _, one in heard)
        assert set(trails) == {("answered",), ("late", "answered")}
        assert trails["late", "answered"] <= 3  # then it is left out
