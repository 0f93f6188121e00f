"""Is one run better than another, or is it chance? Question by question, from the scores kept beside them."""

from pathlib import Path

import msgspec
from rich.table import Table

from evals.measures import difference, interval
from evals.report import Kept, scores_of
from evals.sets import BadSet
from evals.trials import Scores

CHANCE = 0.05


def compare_files(one: str, other: str) -> Table:
    """A table of B less A by measure. Raises BadSet for what is no result file or has nothing in common."""
    these, those = _read(one), _read(other)
    measures = [measure for measure in these if measure in those]
    if not measures:
        raise BadSet(f"{one} and {other} have no measure in common")
    drawn = Table(title=f"A: {one}\nB: {other}", title_justify="left")
    for heading in ("measure", "questions", "A", "B", "B - A", "95 % interval", "p", ""):
        drawn.add_column(heading, justify="left" if heading in ("measure", "") else "right")
    for measure in measures:
        drawn.add_row(measure, *_cells(these[measure], those[measure]))
    drawn.caption = "paired bootstrap of the difference, two-sided paired permutation test"
    return drawn


def _cells(these: dict[str, float], those: dict[str, float]) -> list[str]:
    try:
        found = difference(those, these)
    except ValueError as exc:
        raise BadSet(f"not comparable: {exc}") from exc
    both = these.keys() & those.keys()
    means = [interval([scores[key] for key in sorted(both)]).mean for scores in (these, those)]
    verdict = "chance?" if found.p >= CHANCE else "better" if found.mean > 0 else "worse"
    return [
        str(len(both)),
        *(f"{mean:.4f}" for mean in means),
        f"{found.mean:+.4f}",
        f"{found.low:+.4f} to {found.high:+.4f}",
        f"{found.p:.4f}",
        verdict,
    ]


def _read(named: str) -> Scores:
    file, _, system = named.partition(":")
    path = scores_of(Path(file))
    if not path.exists():
        raise BadSet(f"{path}: no such file; name a result file that `eval` has written")
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except msgspec.DecodeError as exc:
        raise BadSet(f"{path}: {exc}") from exc
    system = system or next(iter(kept.scores), "")
    if system not in kept.scores:
        raise BadSet(f"{path}: no system {system!r}; there are: {', '.join(kept.scores) or 'none'}")
    return kept.scores[system]
