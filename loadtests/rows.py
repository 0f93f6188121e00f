"""What a benchmark's rounds saw, by way and figure, and the result rows made of it."""

import statistics
from collections import defaultdict
from typing import Literal, NamedTuple

from loadtests.figures import Row

DIRECT, OURS, WITH_RETRIEVAL = "direct", "plain", "tandem"
"""Ways to the LLM: none but it, and our assistants; other ways are peers by name."""


class Figure(NamedTuple):
    """A row to be: its key, how it is called, how it is judged. `added`: the direct figure is taken off."""

    key: str
    said: str
    unit: str
    better: Literal["lower", "higher"] = "lower"
    floor: float | None = None
    aim: float | None = None
    added: bool = False


class _Seen(NamedTuple):
    value: float
    void: str


class Rounds:
    """Figures by way and key, one of each a round. A void round counts only where every round is void."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, list[_Seen]]] = defaultdict(lambda: defaultdict(list))
        self._told: dict[str, dict[str, None]] = defaultdict(dict)

    def note(self, way: str, void: str = "", **figures: float) -> None:
        """Add a round's figures; `void` says why they say nothing."""
        for key, value in figures.items():
            self._seen[way][key].append(_Seen(value, void))

    def tell(self, key: str, note: str) -> None:
        """Something that a reader of this figure must know."""
        self._told[key][note] = None

    @property
    def peers(self) -> list[str]:
        """Ways that are neither direct nor ours."""
        return [way for way in self._seen if way not in (DIRECT, OURS, WITH_RETRIEVAL)]

    def of(self, way: str, key: str) -> list[float]:
        """The rounds of a figure that are not void, or all of them if each is."""
        seen = self._seen[way][key]
        return [one.value for one in seen if not one.void] or [one.value for one in seen]

    def added(self, way: str, key: str) -> list[float]:
        """A way's figures less direct, round by round; a round that broke off has no pair."""
        pairs = list(zip(self._seen[way][key], self._seen[DIRECT][key], strict=False))
        good = [(one, direct) for one, direct in pairs if not one.void and not direct.void]
        return [one.value - direct.value for one, direct in good or pairs]

    def notes(self, way: str, key: str) -> str:
        """What was told, and how many rounds are void and why."""
        seen = self._seen[way][key]
        void = [one.void for one in seen if one.void]
        counted = f"{len(void)} of {len(seen)} rounds void: {void[-1]}" if void else ""
        if void and len(void) == len(seen):
            counted = f"VOID: {void[-1]}"
        return "; ".join(filter(None, [*self._told[key], counted]))


def rows_of(found: Rounds, figures: tuple[Figure, ...]) -> list[Row]:
    """A row for each figure that was seen, with retrieval off; then those with retrieval on."""
    rows = [_row(found, OURS, figure) for figure in figures if found.of(OURS, figure.key)]
    on = [figure for figure in figures if found.of(WITH_RETRIEVAL, figure.key)]
    untargeted = [one._replace(said=f"{one.said}, retrieval on", floor=None, aim=None) for one in on]
    return rows + [_row(found, WITH_RETRIEVAL, figure) for figure in untargeted]


def _row(found: Rounds, way: str, figure: Figure) -> Row:
    direct = found.of(DIRECT, figure.key)
    peers = {peer: _peer(found, peer, figure) for peer in found.peers if found.of(peer, figure.key)}
    return Row.of(
        figure.said,
        figure.unit,
        figure.better,
        found.added(way, figure.key) if figure.added else found.of(way, figure.key),
        baseline=statistics.median(direct) if direct else None,
        peers=peers if way == OURS else {},
        floor=figure.floor,
        aim=figure.aim,
        note=found.notes(way, figure.key),
    )


def _peer(found: Rounds, peer: str, figure: Figure) -> float:
    value = statistics.median(found.of(peer, figure.key))
    return value - statistics.median(found.of(DIRECT, figure.key)) if figure.added else value
