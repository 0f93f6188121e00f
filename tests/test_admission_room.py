"""Whether there is room for a question: told as it would be if it came, and without its having come."""

import random
from collections import Counter

import pytest

from business_api.admission import Admission
from business_api.assistants import Assistant
from business_api.deadlines import honour
from business_api.errors import Overloaded, RateLimited, UpstreamTimeout
from business_api.exchange import Message, Question
from business_api.gate import Gate, Rules
from business_api.limiting import Bounds
from business_api.queueing import Ticket
from business_api.settings import LlmSettings

PLAIN = Assistant(name="plain")
ASKED = Question(id="x", tenant="t", assistant="plain", messages=(Message(role="user", content="Why?"),))
FULL = LlmSettings(max_in_flight=1, max_queued=0)


def test_what_is_told_before_is_what_happens_then_and_leaves_no_trace() -> None:
    chance = random.Random(11)
    gate = Gate(Rules(Bounds(start=6, least=1, most=6, tolerated_ms=250), 8))
    inside: list[Ticket] = []
    now, told = 0.0, Counter[str]()
    for _ in range(5000):
        now += chance.expovariate(8)
        came = Ticket(chance.choice("aaaabc"), chance.randrange(3), chance.uniform(50, 900), now, now + 4)
        before = (gate.running, gate.waiting, gate.keys)
        refused = gate.turned_away(came, now)
        assert (gate.running, gate.waiting, gate.keys) == before
        verdicts = dict(gate.arrive(came, now))
        assert type(verdicts.get(came)) is type(refused)
        told[type(refused).__name__] += 1
        inside = [one for one in (*inside, came) if verdicts.get(one) is None]
        if inside and chance.random() < 0.7:
            gone = inside.pop(chance.randrange(len(inside)))
            gate.leave(gone, now)
    assert min(told[kind.__name__] for kind in (type(None), Overloaded, RateLimited)) > 50, told
    for one in inside:
        gate.leave(one, now)
    assert (gate.running, gate.waiting, gate.keys) == (0, 0, 0)
    assert sum(gate.shed().values()) >= 2 * (told["Overloaded"] + told["RateLimited"])


async def test_a_full_tier_has_no_room_until_a_place_is_free() -> None:
    door = Admission(FULL, {})
    door.room(ASKED, PLAIN)
    place = await door.admit(ASKED, PLAIN)
    with pytest.raises(Overloaded) as told:
        door.room(ASKED, PLAIN)
    assert (told.value.retry_after or 0) >= 1
    place.give_back()
    door.room(ASKED, PLAIN)
    assert (door.gate.running, door.gate.waiting, door.gate.keys) == (0, 0, 0)


async def test_who_has_no_time_left_is_told_that() -> None:
    door = Admission(FULL, {})
    place = await door.admit(ASKED, PLAIN)
    honour("1")
    with pytest.raises(UpstreamTimeout, match="deadline"):
        door.room(ASKED, PLAIN)
    place.give_back()
