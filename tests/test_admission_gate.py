"""The gate: who is let in, who waits, who is sent away with what; nothing leaks."""

import itertools
import random
from collections import Counter

import pytest

from business_api.errors import Overloaded, RateLimited
from business_api.gate import LONGEST, SHORTEST, Gate, Rules, Verdict
from business_api.limiting import Bounds
from business_api.queueing import Ticket
from business_api.turnover import SPACING

PATIENCE = 10.0


def gate(places: int = 2, most_waiting: int = 100) -> Gate:
    return Gate(Rules(Bounds(start=places, least=1, most=places, tolerated_ms=250), most_waiting))


def ticket(now: float = 0.0, key: str = "k", rank: int = 1, patience: float = PATIENCE) -> Ticket:
    return Ticket(key, rank, 500.0, now, now + patience)


def warmed(hold: float = 1.0, **rules: int) -> Gate:
    """A gate that has seen generations of this many seconds."""
    found = gate(**rules)
    for _ in range(20):
        one = ticket()
        found.arrive(one, 0.0)
        found.leave(one, hold)
    return found


def test_who_comes_while_there_are_places_is_let_in_at_once() -> None:
    found, one = gate(), ticket()
    assert found.arrive(one, 0.0) == [(one, None)]
    assert (found.running, found.waiting) == (1, 0)


def test_a_place_that_becomes_free_goes_to_who_waits() -> None:
    found = gate(places=1)
    first, second = ticket(), ticket()
    found.arrive(first, 0.0)
    assert found.arrive(second, 0.0) == []
    assert found.leave(first, 1.0) == [(second, None)]


def test_a_place_is_given_back_once_however_often_it_is_given_back() -> None:
    found = gate(places=1)
    first, second = ticket(), ticket()
    found.arrive(first, 0.0)
    found.leave(first, 1.0)
    found.arrive(second, 1.0)
    found.leave(first, 2.0)
    assert found.running == 1


def test_who_would_wait_too_long_is_sent_away_before_waiting() -> None:
    found = warmed(hold=4.0)
    verdicts = [found.arrive(ticket(4.0), 4.0) for _ in range(20)]
    shed = [refusal for (verdict,) in filter(None, verdicts) if (refusal := verdict[1]) is not None]
    # two places, 4 s each: who has more than one before it would use up what is SURE of its 10 s
    assert (found.running, found.waiting, len(shed)) == (2, 2, 16)
    assert all(isinstance(refusal, Overloaded) for refusal in shed)
    assert found.shed() == {"hopeless": 16}


def test_places_that_become_free_at_once_are_given_away_one_after_the_other() -> None:
    found = warmed(hold=4.0, places=16)
    running = [ticket(4.0) for _ in range(16)]
    for one in running:
        found.arrive(one, 4.0)
    for _ in range(16):
        found.arrive(ticket(4.0), 4.0)
    told = [verdict for one in running for verdict in found.leave(one, 8.0)]
    starts = [8.0 for _ in told]
    now = 8.0
    while (opens := found.opens(now)) is not None and len(starts) < 16:
        now = opens
        starts += [now for _ in found.admit(now)]
    assert starts.count(8.0) == 3
    # 16 places of 4 s each: one becomes free in a quarter of a second, and nearly as much lies between starts
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts[3:])]
    assert gaps == pytest.approx([SPACING * 4.0 / 16] * len(gaps))


def test_starts_are_not_spread_while_there_are_places_for_all() -> None:
    found = warmed(hold=4.0, places=16)
    assert all(found.arrive(one, 4.0) == [(one, None)] for one in [ticket(4.0) for _ in range(16)])


def test_a_key_that_asks_less_than_its_share_may_use_all_of_its_time_to_wait() -> None:
    found = warmed(hold=4.0)
    for _ in range(20):
        found.arrive(ticket(4.0, key="flood"), 4.0)
    polite = [found.arrive(ticket(4.0, key="polite", patience=patience), 4.0) for patience in (5.0, 3.9)]
    # two others' turns are before it, of 4 s each, two at a time: 4 s and no more
    assert [len(verdicts) for verdicts in polite] == [0, 1]


def test_places_do_not_stay_empty_for_long_once_answers_take_a_hundredth_of_the_time() -> None:
    found, now = gate(places=16), 0.0
    running = [ticket(patience=1e9) for _ in range(80)]
    for one in running:
        found.arrive(one, 0.0)
    while found.running or found.waiting:  # as of servers that hang until each answer's deadline
        now += 100.0
        for one in running:
            if found.leave(one, now):
                found.admit(now)
    for _ in range(100):
        found.arrive(ticket(now, patience=1e9), now)
    began, started = now, dict[Ticket, float]()
    while now < began + 60.0:
        now += 0.1
        for one in [one for one, since in started.items() if now - since >= 1.0]:
            del started[one]
            started |= {other: now for other, _ in found.leave(one, now)}
        started |= {one: now for one, _ in found.admit(now)}
    assert found.waiting == 0


def test_who_has_waited_to_the_deadline_is_sent_away_then() -> None:
    found = gate(places=1)
    first, late = ticket(), ticket()
    found.arrive(first, 0.0)
    found.arrive(late, 0.0)
    ((told, refusal),) = found.expire(late, PATIENCE)
    assert told is late
    assert isinstance(refusal, Overloaded)
    assert found.leave(first, PATIENCE) == []
    assert found.expire(late, PATIENCE) == []


def test_retry_after_is_how_long_the_queue_takes_and_never_the_same_for_all() -> None:
    found = warmed(hold=4.0)
    for _ in range(5):
        found.arrive(ticket(4.0), 4.0)
    waits = [refusal_of(found.arrive(ticket(4.0), 4.0)).retry_after or 0 for _ in range(50)]
    # two wait: this one's is the third place of 4 s, two at a time
    assert min(waits) >= 6
    assert max(waits) <= 6 * 1.5
    assert len({round(wait, 2) for wait in waits}) > 40


@pytest.mark.parametrize(("hold", "bound"), [(0.001, SHORTEST), (10_000.0, LONGEST)])
def test_retry_after_stays_within_reason(hold: float, bound: float) -> None:
    found = warmed(hold=hold, most_waiting=0)
    for _ in range(2):
        found.arrive(ticket(hold, patience=1e9), hold)
    told = refusal_of(found.arrive(ticket(hold, patience=1e9), hold)).retry_after or 0
    assert bound <= told <= min(LONGEST, bound * 1.5)


def test_an_llm_that_ends_nothing_any_more_lengthens_the_wait_that_is_told() -> None:
    found = warmed(hold=1.0)
    for _ in range(2):
        found.arrive(ticket(1.0), 1.0)
    assert found.arrive(ticket(2.0), 2.0) == []
    told = refusal_of(found.arrive(ticket(50.0), 50.0))
    assert (told.retry_after or 0) >= 45


def refusal_of(verdicts: list[Verdict]) -> Overloaded | RateLimited:
    ((_, refusal),) = verdicts
    assert isinstance(refusal, Overloaded | RateLimited)
    return refusal


def test_a_key_that_alone_asks_too_much_is_told_so_and_others_find_room() -> None:
    found = gate(places=1, most_waiting=10)
    for _ in range(11):
        found.arrive(ticket(key="flood"), 0.0)
    polite = ticket(key="polite")
    ((leaving, refusal),) = found.arrive(polite, 0.0)
    assert leaving.key == "flood"
    assert isinstance(refusal, RateLimited)
    assert isinstance(refusal_of(found.arrive(ticket(key="flood"), 0.0)), RateLimited)
    assert found.keys == 2


def test_a_key_that_is_alone_is_told_that_the_service_is_full() -> None:
    found = gate(places=1, most_waiting=0)
    found.arrive(ticket(), 0.0)
    assert isinstance(refusal_of(found.arrive(ticket(), 0.0)), Overloaded)


def test_a_hundred_thousand_random_operations_leak_nothing() -> None:
    chance, found = random.Random(7), gate(places=20, most_waiting=50)
    alive, verdicts, now = list[Ticket](), Counter[Ticket](), 0.0

    def note(told: list[Verdict]) -> None:
        for one, refusal in told:
            verdicts[one] += 1
            if refusal is not None:
                alive.remove(one)

    for _ in range(100_000):
        now += chance.expovariate(50)
        kind = chance.random()
        if kind < 0.5 or not alive:
            one = ticket(now, chance.choice("aaaaabcd"), chance.randrange(3), chance.uniform(0.1, 5))
            alive.append(one)
            note(found.arrive(one, now))
        elif kind < 0.85:
            one = alive.pop(chance.randrange(len(alive)))
            note(found.leave(one, now))
        elif kind < 0.95:
            note(found.expire(chance.choice(alive), now))
        else:
            note(found.observe(chance.choice([None, 20.0, 2000.0]), 100, now))
        assert found.running <= 20
        assert found.waiting <= 50
        assert found.running + found.waiting == len(alive)
    assert max(verdicts.values()) == 1
    while alive:
        note(found.leave(alive.pop(), now))
    assert (found.running, found.waiting, found.keys) == (0, 0, 0)
