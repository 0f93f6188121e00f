"""Scores of rankings (trec_eval's), intervals by bootstrap, and whether a difference is more than chance."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytrec_eval
from scipy import stats

MEASURES = {"nDCG@10": "ndcg_cut_10", "Recall@10": "recall_10", "Recall@100": "recall_100"}
"""Ours -> trec_eval's. MRR@10 is trec_eval's recip_rank of the first ten."""

RESAMPLES = 4000
SEED = 20240611


class Interval(msgspec.Struct, frozen=True):
    """A mean, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """The mean of (this - that) over the same questions; `p` by a paired permutation test, two-sided."""

    mean: float
    low: float
    high: float
    p: float


def score_rankings(
    judged: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Scores by measure and question; a question without a ranking scores 0."""
    runs = {question: _run(documents) for question, documents in ranked.items()}
    tops = {question: _run(documents[:10]) for question, documents in ranked.items()}
    found = _evaluated(judged, runs, set(MEASURES.values()))
    first = _evaluated(judged, tops, {"recip_rank"})
    scores = {
        ours: {question: found.get(question, {}).get(theirs, 0.0) for question in judged}
        for ours, theirs in MEASURES.items()
    }
    scores["MRR@10"] = {question: first.get(question, {}).get("recip_rank", 0.0) for question in judged}
    return scores


def _run(documents: Sequence[str]) -> dict[str, float]:
    return {document: float(-place) for place, document in enumerate(documents)}


def _evaluated(
    judged: Mapping[str, Mapping[str, int]], runs: Mapping[str, Mapping[str, float]], measures: set[str]
) -> dict[str, dict[str, float]]:
    evaluator = pytrec_eval.RelevanceEvaluator({key: dict(one) for key, one in judged.items()}, measures)
    found: dict[str, dict[str, float]] = evaluator.evaluate(dict(runs))
    return found


def interval(values: Sequence[float]) -> Interval:
    """The mean with its 95 % bootstrap interval (percentile method)."""
    sample = np.asarray(values, float)
    mean = float(sample.mean())
    if np.ptp(sample) == 0:
        return Interval(mean, mean, mean)
    found: Any = stats.bootstrap(
        (sample,), np.mean, n_resamples=RESAMPLES, batch=200, method="percentile", rng=SEED
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def difference(these: Mapping[str, float], those: Mapping[str, float]) -> Difference:
    """How much better these are than those, over the questions that both have. Raises ValueError for none."""
    both = sorted(these.keys() & those.keys())
    if not both:
        raise ValueError("the two have no question in common")
    one = np.array([these[key] for key in both], float)
    other = np.array([those[key] for key in both], float)
    spread = interval((one - other).tolist())
    if spread.low == spread.high:
        return Difference(spread.mean, spread.low, spread.high, 1.0 if spread.mean == 0 else 0.0)
    test: Any = stats.permutation_test(
        (one, other),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        rng=SEED,
    )
    return Difference(spread.mean, spread.low, spread.high, float(test.pvalue))
