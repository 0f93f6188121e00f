"""Who waits for the LLM, and who is next: classes by priority, and in each class the keys in turn, by tokens.

Classes are strict, except that a share of the tokens goes to lower classes while they wait. Within a class
tokens are dealt out to the keys evenly, as in a deficit round robin (Shreedhar and Varghese, 1995) whose
quantum is what the next request lacks: a key with a thousand requests waiting is served no more tokens than
one with a single request. What a key had no use for it may use later, within bounds: who asks little is not
punished for asking twice at once. Knows no clock and no limit.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

SAVED = 8
"""Requests like its own for which a key can save tokens while it has none waiting."""
REMEMBERED = 4096
"""Keys without a waiting request whose tokens are remembered."""
HAIR = 1e-6
"""Tokens by which sums of parts may be short of the whole."""
LOWER_SHARE = 0.1
"""Share of the tokens that lower classes get while a higher one waits too."""


@dataclass(frozen=True, eq=False, slots=True)
class Ticket:
    """A request that wants a place. `rank` 0 goes first; `cost` is in tokens; times are in seconds."""

    key: str
    rank: int
    cost: float
    arrived: float
    deadline: float


@dataclass(slots=True)
class _Lane:
    """What waits of one key, oldest first, and the tokens that it may still use."""

    deficit: float
    tickets: dict[Ticket, None] = field(default_factory=dict)
    cost: float = 0.0

    @property
    def head(self) -> Ticket:
        return next(iter(self.tickets))

    @property
    def lacks(self) -> float:
        """Tokens until its oldest may go."""
        return self.head.cost - self.deficit

    def push(self, ticket: Ticket) -> None:
        self.tickets[ticket] = None
        self.cost += ticket.cost

    def drop(self, ticket: Ticket) -> None:
        del self.tickets[ticket]
        self.cost -= ticket.cost


class _Rank:
    """One class: its lanes in the order of their turns, and the tokens that it owes to lower classes.

    `_dealt` are the tokens that every lane has got so far, `_left` what a key that left had more than that.
    """

    def __init__(self) -> None:
        self.lanes: dict[str, _Lane] = {}
        self.cost = 0.0
        self.owes = 0.0
        self._dealt = 0.0
        self._left: OrderedDict[str, float] = OrderedDict()

    def push(self, ticket: Ticket) -> None:
        lane = self.lanes.get(ticket.key)
        if lane is None:
            lane = self.lanes[ticket.key] = _Lane(self._deficit(ticket))
            self._left.pop(ticket.key, None)
        lane.push(ticket)
        self.cost += ticket.cost

    def drop(self, ticket: Ticket) -> bool:
        lane = self.lanes.get(ticket.key)
        if lane is None or ticket not in lane.tickets:
            return False
        lane.drop(ticket)
        if lane.tickets:
            self.cost -= ticket.cost
        else:
            self._close(ticket.key, lane)
            self.cost = self.cost - ticket.cost if self.lanes else 0.0
        return True

    def _close(self, key: str, lane: _Lane) -> None:
        del self.lanes[key]
        self._left[key] = lane.deficit - self._dealt
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)

    def _deficit(self, ticket: Ticket) -> float:
        """Tokens that the ticket's key may use, beside those dealt from now on."""
        lane = self.lanes.get(ticket.key)
        if lane is not None:
            return lane.deficit
        saved = self._left.get(ticket.key, -self._dealt) + self._dealt
        return min(saved, SAVED * ticket.cost)

    def turn(self) -> Ticket:
        """Whose turn it is. Deals tokens to every lane if no lane has enough."""
        if (lacking := min(lane.lacks for lane in self.lanes.values())) > 0:
            self._dealt += lacking
            for lane in self.lanes.values():
                lane.deficit += lacking
        return next(lane.head for lane in self.lanes.values() if lane.lacks <= HAIR)

    def take(self, ticket: Ticket) -> None:
        """Let it go: its key pays, and gives way when it cannot pay for its next one."""
        lane = self.lanes[ticket.key]
        lane.deficit -= ticket.cost
        self.drop(ticket)
        if lane.tickets and lane.lacks > 0:
            self.lanes[ticket.key] = self.lanes.pop(ticket.key)

    def longest(self) -> _Lane:
        return max(self.lanes.values(), key=lambda lane: lane.cost)

    def waiting_of(self, key: str) -> float:
        """Tokens of this key that wait."""
        return self.lanes[key].cost if key in self.lanes else 0.0

    def ahead_of(self, ticket: Ticket) -> float:
        """Tokens that are served before this one if it comes now."""
        own = self.waiting_of(ticket.key)
        dealt = max(0.0, own + ticket.cost - self._deficit(ticket))
        others = (lane for key, lane in self.lanes.items() if key != ticket.key)
        return own + sum(min(lane.cost, max(0.0, lane.deficit + dealt)) for lane in others)


class Queue:
    """All that wait. Iterating goes through them, class by class."""

    def __init__(self, ranks: int) -> None:
        self._ranks = [_Rank() for _ in range(ranks)]
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for rank in self._ranks for lane in rank.lanes.values() for ticket in lane.tickets)

    def push(self, ticket: Ticket) -> None:
        """Let it wait."""
        self._ranks[ticket.rank].push(ticket)
        self._length += 1

    def remove(self, ticket: Ticket) -> bool:
        """Take it out; False if it does not wait (any more)."""
        found = self._ranks[ticket.rank].drop(ticket)
        self._length -= found
        return found

    def pop(self) -> Ticket:
        """Take out who is next. The queue must not be empty."""
        waiting = [rank for rank in self._ranks if rank.lanes]
        for higher, lower in itertools.pairwise(waiting):
            if higher.owes < (ticket := lower.turn()).cost:
                return self._take(higher, higher.turn(), owing=True)
            higher.owes -= ticket.cost
        return self._take(waiting[-1], waiting[-1].turn(), owing=False)

    def _take(self, rank: _Rank, ticket: Ticket, *, owing: bool) -> Ticket:
        rank.owes = rank.owes + LOWER_SHARE * ticket.cost if owing else 0.0
        rank.take(ticket)
        self._length -= 1
        return ticket

    def ahead_of(self, ticket: Ticket) -> float:
        """Tokens that are served before this one if it comes now and nobody comes after it."""
        higher = sum(rank.cost for rank in self._ranks[: ticket.rank])
        lower = any(rank.lanes for rank in self._ranks[ticket.rank + 1 :])
        within = self._ranks[ticket.rank].ahead_of(ticket)
        strict = (higher + within) / (1 - LOWER_SHARE if lower else 1)
        return min(strict, (within + ticket.cost) / LOWER_SHARE) if higher else strict

    def to_give_way(self, ticket: Ticket) -> Ticket | None:
        """Who leaves a full queue for this one: the newest of the key with most waiting, in the lowest class.

        None if that is of a higher class, or of a key that would have less waiting than the newcomer's.
        """
        lowest = max((number for number, rank in enumerate(self._ranks) if rank.lanes), default=-1)
        if lowest < ticket.rank:
            return None
        longest = self._ranks[lowest].longest()
        newest = next(reversed(longest.tickets))
        own = self._ranks[ticket.rank].waiting_of(ticket.key)
        if lowest == ticket.rank and longest.cost - newest.cost < own + ticket.cost:
            return None
        return newest
