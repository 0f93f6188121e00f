"""Which server gets an answer: shares, prefixes, bounds, and what that brings over taking turns."""

import heapq
import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest

from business_api.exchange import Message, Prompt
from business_api.transport import Transport
from business_api.upstream.asked import Asked
from business_api.upstream.choosing import Choice, Choose, chooser
from business_api.upstream.replica import Replica


def replicas(*weights: float) -> list[Replica]:
    nowhere = cast(Transport, None)
    return [Replica(f"llm-{n}", nowhere, weight=weight) for n, weight in enumerate(weights)]


def asked(*said: str, tokens: float = 100.0, expected: float = 100.0) -> Asked:
    """A conversation whose turns are the user's and the assistant's by turns."""
    messages = tuple(
        Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(said)
    )
    prompt = Prompt(messages=messages, max_tokens=100)
    return Asked(prompt, {}, "id", until=1e9, prompt_tokens=tokens, expected_tokens=expected)


def test_the_less_burdened_of_two_is_asked() -> None:
    light, heavy = replicas(1, 1)
    heavy.carry(100, 100)
    light.carry(10, 10)
    assert {chooser("least_tokens")([light, heavy], asked("?")) for _ in range(20)} == {light}


def test_a_weight_is_a_share_of_the_tokens() -> None:
    pool = replicas(1, 3)
    choose = chooser("least_tokens")
    for _ in range(400):
        choose(pool, asked("?")).carry(100, 100)
    small, big = pool
    assert big.outstanding / small.outstanding == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("choice", ["least_tokens", "round_robin", "prefix"])
def test_a_single_server_is_always_asked(choice: Choice) -> None:
    (alone,) = replicas(1)
    alone.carry(1e6, 1e6)
    assert chooser(choice)([alone], asked("?")) is alone


def test_all_turns_of_a_conversation_are_asked_of_one_server() -> None:
    pool, choose = replicas(1, 1, 1, 1), chooser("prefix")
    for opening in map(str, range(20)):
        turns = [asked(opening), asked(opening, "yes", "and?"), asked(opening, "yes", "and?", "so", "then?")]
        assert len({choose(pool, turn) for turn in turns}) == 1
    assert len({choose(pool, asked(str(n))) for n in range(100)}) == 4


def test_a_server_that_leaves_moves_only_its_own_conversations() -> None:
    pool, choose = replicas(1, 1, 1, 1), chooser("prefix")
    before = {n: choose(pool, asked(str(n))) for n in range(400)}
    after = {n: choose(pool[:3], asked(str(n))) for n in range(400)}
    assert {n for n in before if before[n] is not after[n]} == {n for n in before if before[n] is pool[3]}


def test_one_hot_conversation_never_carries_more_than_the_bound() -> None:
    pool, choose = replicas(1, 1, 1, 1), chooser("prefix", 1.25)
    for _ in range(400):
        choose(pool, asked("hot")).carry(100, 100)
    most, mean = max(one.running for one in pool), 100
    assert mean < most <= 1.25 * mean + 1


class Server:
    """Reads 20,000 tokens of prompts a second, one prompt after the other, and says 50 a second to each.

    It keeps the prompts of its last 80 conversations: what is known of a longer one is not read again.
    """

    def __init__(self) -> None:
        self.cached: OrderedDict[int, float] = OrderedDict()
        self.free_at = 0.0

    def read(self, now: float, conversation: int, tokens: float) -> tuple[float, float]:
        """When the prompt has been read, and how many tokens of it were known."""
        known = min(self.cached.pop(conversation, 0.0), tokens)
        self.cached[conversation] = tokens
        if len(self.cached) > 80:
            self.cached.popitem(last=False)
        self.free_at = max(now, self.free_at) + (tokens - known) / 20_000
        return self.free_at, known


@dataclass
class Run:
    """What came of one simulated run: seconds to the first token, and the share of tokens not read again."""

    ttft: list[float]
    known: float

    @property
    def slow(self) -> float:
        """The 95th percentile."""
        return sorted(self.ttft)[int(0.95 * len(self.ttft))]


def simulated(choose: Choose, *, load: float, turns: int = 4000, seed: int = 7) -> Run:
    """Questions to 4 servers, of 200 conversations at a time, each of 6 turns.

    Every fifth conversation begins with 8,000 tokens, the others with 800; a turn adds 400. `load` is the
    share of what the servers could read, without a cache, that comes in; arrivals are Poisson's.
    """
    chance = random.Random(seed)
    servers, pool = [Server() for _ in range(4)], replicas(1, 1, 1, 1)
    begun = dict.fromkeys(range(200), 0)
    mean = 0.2 * 8000 + 0.8 * 800 + 400 * 2.5
    now, sent, known, ttft = 0.0, 0.0, 0.0, list[float]()
    events: list[tuple[float, int, Callable[[], None]]] = []
    for number in range(turns):
        now += chance.expovariate(4 * 20_000 * load / mean)
        while events and events[0][0] <= now:
            heapq.heappop(events)[2]()
        conversation = chance.choice(list(begun))
        tokens = (8000.0 if conversation % 5 == 0 else 800.0) + 400 * begun[conversation]
        replica = choose(pool, asked(str(conversation), tokens=tokens, expected=250))
        read_at, cached = servers[pool.index(replica)].read(now, conversation, tokens)
        carried = replica.carry(tokens, 250)
        heapq.heappush(events, (read_at, 2 * number, carried.prefilled))
        heapq.heappush(events, (read_at + chance.uniform(20, 480) / 50, 2 * number + 1, carried.put_down))
        sent, known = sent + tokens, known + cached
        ttft.append(read_at - now)
        begun[conversation] += 1
        if begun[conversation] == 6:
            del begun[conversation]
            begun[max(begun) + 1 if begun else 0] = 0
    return Run(ttft, known / sent)


def test_fewest_tokens_begin_sooner_than_taking_turns() -> None:
    turns, fewest = simulated(chooser("round_robin"), load=0.8), simulated(chooser("least_tokens"), load=0.8)
    assert fewest.slow < turns.slow


def test_near_the_prefix_far_less_is_read_and_answers_begin_sooner() -> None:
    turns, near = simulated(chooser("round_robin"), load=0.8), simulated(chooser("prefix"), load=0.8)
    assert near.known > 2 * turns.known
    assert near.slow < turns.slow


def test_weighted_prefixes_are_shared_by_weight() -> None:
    pool, choose = replicas(1, 3), chooser("prefix", 100)
    drawn = Counter(choose(pool, asked(str(n))).name for n in range(4000))
    assert drawn["llm-1"] / drawn["llm-0"] == pytest.approx(3, rel=0.15)
