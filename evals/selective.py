"""How well a probability tells the questions to answer from those to leave: AUROC, risk and coverage."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from evals.measures import SEED, Interval

Floats = npt.NDArray[np.float64]
Miss = Literal["near_miss", "off_topic"]
Kind = Literal["answerable", "near_miss", "off_topic"]
"""`near_miss`: the documents speak of it and do not answer; `off_topic`: they are about something else."""

MISSES: tuple[Miss, ...] = ("near_miss", "off_topic")
RESAMPLES = 400


class Case(msgspec.Struct, frozen=True):
    """A question asked of one index: its subject, whether that index answers it, and the signals."""

    question: str
    subject: str
    kind: Kind
    index: str
    signals: dict[str, float]


class Split(msgspec.Struct, frozen=True):
    """Probabilities of questions with an answer and of those without, and the subject of each."""

    right: Floats
    wrong: Floats
    right_subjects: tuple[str, ...]
    wrong_subjects: tuple[str, ...]

    @classmethod
    def of(cls, cases: Sequence[Case], probabilities: Floats, miss: Miss) -> "Split":
        """The questions of one kind, and those with an answer that were asked of the same indexes."""
        indexes = {case.index for case in cases if case.kind == miss}
        here = [
            (case, float(p)) for case, p in zip(cases, probabilities, strict=True) if case.index in indexes
        ]
        right = [(case.subject, p) for case, p in here if case.kind == "answerable"]
        wrong = [(case.subject, p) for case, p in here if case.kind == miss]
        return cls(
            np.array([p for _, p in right]),
            np.array([p for _, p in wrong]),
            tuple(subject for subject, _ in right),
            tuple(subject for subject, _ in wrong),
        )

    def resampled(self) -> Iterator["Split"]:
        """Subjects drawn with replacement: the questions of one subject resemble each other."""
        random = np.random.default_rng(SEED)
        subjects = sorted({*self.right_subjects, *self.wrong_subjects})
        right, wrong = _places(self.right_subjects), _places(self.wrong_subjects)
        nothing = np.array([], dtype=int)
        for _ in range(RESAMPLES):
            drawn = random.choice(subjects, len(subjects))
            these = np.concatenate([right.get(subject, nothing) for subject in drawn])
            those = np.concatenate([wrong.get(subject, nothing) for subject in drawn])
            if len(these) and len(those):
                yield Split(self.right[these], self.wrong[those], (), ())


def misses_of(cases: Sequence[Case]) -> list[Miss]:
    """The kinds of questions without an answer that there are."""
    there = {case.kind for case in cases}
    return [miss for miss in MISSES if miss in there]


def auroc(split: Split) -> float:
    """How often a question with an answer is held for more probable than one without (ties: half)."""
    ranks = stats.rankdata(np.concatenate([split.right, split.wrong]))
    here, there = len(split.right), len(split.wrong)
    return float((ranks[:here].sum() - here * (here + 1) / 2) / (here * there))


def wrong_at(split: Split, coverage: float) -> float:
    """The share of the questions without an answer that get one, when this share of the others does."""
    return float((split.wrong >= threshold_at(split.right, coverage)).mean())


def threshold_at(right: Floats, coverage: float) -> float:
    """The highest threshold that lets so many of the questions with an answer through."""
    kept = max(math.ceil(coverage * len(right) - 1e-9), 1)
    return float(np.sort(right)[-kept])


def bootstrapped(split: Split, measure: Callable[[Split], float]) -> Interval:
    """The measure with its 95 % interval over subjects."""
    drawn = [measure(one) for one in split.resampled()]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(measure(split), float(low), float(high))


def _places(subjects: Sequence[str]) -> dict[str, Any]:
    array = np.array(subjects)
    return {str(subject): np.flatnonzero(array == subject) for subject in np.unique(array)}
