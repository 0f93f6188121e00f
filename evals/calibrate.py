"""Fits the judge: a logistic model of signals, with a curve of risk from subjects that were held out.

A weight never contradicts what its signal means (`DIRECTIONS`): on some set a missing word may speak for an
answer, because of how its questions were made, and such a judge would surprise everywhere else.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from business_api.abstaining import MOST, Calibration, Point
from business_api.signals import DIRECTIONS
from evals.selective import Case, Floats, Kind, threshold_at

MIX: Mapping[Kind, float] = {"answerable": 0.5, "near_miss": 0.25, "off_topic": 0.25}
"""What the calibrated probability and the risk take for granted about the questions to come."""
FOLDS = 8
RIDGE = 3.0
"""Penalty of the squared weights, in questions."""
COVERAGES = np.round(np.linspace(1.0, 0.05, 77), 4)
DIGITS = 6


def fit(
    cases: Sequence[Case], *, embedder: str, data: str, made: Mapping[str, Any] | None = None
) -> Calibration:
    """The calibration of these cases; its curve is that of models that had not seen the subject asked about.

    Raises ValueError when there are too few subjects to hold some out, or not both kinds of questions.
    """
    features = features_of(cases)
    model = _fitted(cases, features, weights_of(cases))
    used = [place for place, weight in enumerate(model.weights) if weight]
    counted = dict(Counter(case.kind for case in cases))
    return msgspec.structs.replace(
        model,
        embedder=embedder,
        data=data,
        features=tuple(features[place] for place in used),
        mean=tuple(model.mean[place] for place in used),
        scale=tuple(model.scale[place] for place in used),
        weights=tuple(model.weights[place] for place in used),
        curve=curve_of(cases, cross_validated(cases, features)),
        made={"cases": counted, "mix": dict(MIX), "folds": folds_of(cases), **(made or {})},
    )


def features_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """The signals that all cases have and that differ among them."""
    return tuple(
        name
        for name in DIRECTIONS
        if sum(name in case.signals for case in cases) > 0.99 * len(cases)
        and len({case.signals[name] for case in cases if name in case.signals}) > 1
    )


def cross_validated(cases: Sequence[Case], features: Sequence[str]) -> Floats:
    """The probability of each case by a model fitted without any case of its subject."""
    probabilities, weights = np.zeros(len(cases)), weights_of(cases)
    for held in _folds(cases):
        seen = np.flatnonzero(~held)
        model = _fitted([cases[int(place)] for place in seen], features, weights[seen])
        for place in np.flatnonzero(held):
            probabilities[place] = model.probability(cases[int(place)].signals)
    return probabilities


def weights_of(cases: Sequence[Case]) -> Floats:
    """Weights that give each kind its share of MIX; a kind that is missing leaves its share to the others."""
    counts = Counter(case.kind for case in cases)
    if len(counts) < 2 or "answerable" not in counts:
        raise ValueError("needs questions that the documents answer, and some that they do not")
    wrong = sum(MIX[kind] for kind in counts if kind != "answerable")
    left = (1 - MIX["answerable"]) / wrong
    shares = {kind: MIX[kind] * (1.0 if kind == "answerable" else left) for kind in counts}
    return np.array([shares[case.kind] / counts[case.kind] for case in cases]) * len(cases)


def curve_of(cases: Sequence[Case], probabilities: Floats) -> tuple[Point, ...]:
    """Risk and coverage by rising threshold, in the proportions of MIX."""
    weights = weights_of(cases)
    right = np.array([case.kind == "answerable" for case in cases])
    curve: dict[float, Point] = {}
    for coverage in COVERAGES:
        threshold = threshold_at(probabilities[right], float(coverage))
        given = probabilities >= threshold
        risk = weights[given & ~right].sum() / weights[given].sum()
        kept = weights[given & right].sum() / weights[right].sum()
        threshold = float(np.floor(threshold * 10**DIGITS) / 10**DIGITS)
        curve[threshold] = Point(threshold, round(float(risk), 4), round(float(kept), 4))
    return tuple(curve[threshold] for threshold in sorted(curve))


def write(calibration: Calibration, path: Path) -> None:
    """Write it, readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n")


def folds_of(cases: Sequence[Case]) -> int:
    """How many models are fitted to hold each subject out once."""
    return min(FOLDS, len({case.subject for case in cases}))


def _folds(cases: Sequence[Case]) -> Iterator[Any]:
    """Masks of the cases to hold out: whole subjects, about as many cases each."""
    counts = Counter(case.subject for case in cases)
    if len(counts) < 2:
        raise ValueError("needs questions about at least two subjects: one must be held out")
    folds: list[set[str]] = [set() for _ in range(folds_of(cases))]
    for subject, _ in counts.most_common():
        min(folds, key=lambda fold: sum(counts[one] for one in fold)).add(subject)
    subjects = np.array([case.subject for case in cases])
    for fold in folds:
        yield np.isin(subjects, list(fold))


def _fitted(cases: Sequence[Case], features: Sequence[str], weights: Floats) -> Calibration:
    """Ridge logistic regression over clipped deviations, each weight on the side of its signal."""
    signals = np.array([[case.signals.get(name, np.nan) for name in features] for case in cases])
    there = ~np.isnan(signals)
    summed = (weights[:, None] * there).sum(axis=0)
    mean = (weights[:, None] * np.where(there, signals, 0.0)).sum(axis=0) / summed
    deviations = np.where(there, signals - mean, 0.0)
    scale = np.sqrt((weights[:, None] * deviations**2).sum(axis=0) / summed)
    scale[scale == 0] = 1.0
    found = _minimum(
        np.clip(deviations / scale, -MOST, MOST),
        np.array([case.kind == "answerable" for case in cases], float),
        weights,
        [(0.0, None) if DIRECTIONS[name] > 0 else (None, 0.0) for name in features],
    )
    return Calibration(
        embedder="",
        data="",
        features=tuple(features),
        mean=tuple(np.round(mean, DIGITS).tolist()),
        scale=tuple(np.round(scale, DIGITS).tolist()),
        weights=tuple(np.round(found[:-1], DIGITS).tolist()),
        bias=round(float(found[-1]), DIGITS),
        curve=(Point(0.0, 1.0, 1.0),),
    )


def _minimum(deviations: Floats, right: Floats, weights: Floats, sides: list[Any]) -> Floats:
    """The weights of the features, then the bias, of least weighted log loss plus ridge."""

    def loss(of: Floats) -> tuple[float, Floats]:
        said = deviations @ of[:-1] + of[-1]
        losses = np.logaddexp(0, np.where(right > 0, -said, said))
        slopes = weights * (expit(said) - right)
        slope = np.append(deviations.T @ slopes + RIDGE * of[:-1], slopes.sum())
        return float((weights * losses).sum() + RIDGE / 2 * (of[:-1] ** 2).sum()), slope

    start = np.zeros(deviations.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[*sides, (None, None)])
    solution: Floats = found.x
    return solution
