"""Which replica gets an answer: pure choices over what the replicas carry now."""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from typing import Literal

from business_api.upstream.asked import Asked
from business_api.upstream.replica import Replica

Choice = Literal["least_tokens", "prefix", "round_robin"]

Choose = Callable[[Sequence[Replica], Asked], Replica]
"""(replicas, at least one; what is asked) -> one of them."""


def chooser(choice: Choice, load_bound: float = 1.25) -> Choose:
    """The choice of this name. `load_bound` is what `prefix` lets a replica carry, in mean loads."""
    if choice == "prefix":
        return NearPrefix(load_bound)
    return InTurn() if choice == "round_robin" else least_tokens


def least_tokens(replicas: Sequence[Replica], asked: Asked) -> Replica:
    """The less burdened of two drawn at random: close to the least of all, and no herd runs to the same one.

    Power of two choices (Mitzenmacher 2001); a replica is drawn in proportion to its weight.
    """
    if len(replicas) == 1:
        return replicas[0]
    if len(replicas) == 2:
        one, other = replicas
    else:
        one = _drawn(replicas)
        other = _drawn([replica for replica in replicas if replica is not one])
    if one.burden == other.burden:
        return _drawn((one, other))
    return one if one.burden < other.burden else other


def _drawn(replicas: Sequence[Replica]) -> Replica:
    return random.choices(replicas, [replica.weight for replica in replicas])[0]  # noqa: S311 - no secret


class InTurn:
    """One after the other, whatever they carry: what the other choices are measured against."""

    def __init__(self) -> None:
        self._turn = -1

    def __call__(self, replicas: Sequence[Replica], asked: Asked) -> Replica:
        """The next one."""
        self._turn += 1
        return replicas[self._turn % len(replicas)]


class NearPrefix:
    """The same replica for the same beginning of a prompt, so that its prefix cache hits, unless it is full.

    Weighted rendezvous hashing: each replica has a score for each prefix, the best one is asked first, and a
    replica that comes or goes moves only its own share. Bounded loads (Mirrokni, Thorup and Zadimoghaddam
    2016): none runs more than `bound` times the mean; then the next best is asked. Answers are counted, not
    tokens: with prompts of very different sizes a bound on tokens sends half of them away from their prefix.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound

    def __call__(self, replicas: Sequence[Replica], asked: Asked) -> Replica:
        """The best one for the prompt's prefix that has room."""
        key = asked.prefix
        mean = (sum(one.running for one in replicas) + 1) / sum(one.weight for one in replicas)
        for replica in sorted(replicas, key=lambda one: _score(key, one), reverse=True):
            if replica.running < math.ceil(self._bound * mean * replica.weight):
                return replica
        raise AssertionError("one of them is at the mean or below it")


def _score(key: bytes, replica: Replica) -> float:
    digest = hashlib.blake2b(key + replica.name.encode(), digest_size=8).digest()
    drawn = (int.from_bytes(digest) + 0.5) / 2**64
    return -replica.weight / math.log(drawn)
