"""The picture of a judge: who is let through, and what is risked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.calibrate import MIX, curve_of, weights_of
from evals.plots import COLOURS
from evals.qa import QaReport
from evals.selective import Floats, Split, auroc, misses_of


def draw_risk(report: QaReport, path: Path) -> Path:
    """`<result file>.png`: right answers against wrong ones, risk against coverage, calibration."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, (kept, risk, sure) = pyplot.subplots(1, 3, figsize=(13.5, 4.4), layout="constrained")
    probabilities = np.array(report.probabilities)
    _draw_kept(kept, report, probabilities)
    _draw_risk(risk, report, probabilities)
    _draw_calibration(sure, report, probabilities)
    for axes in (kept, risk, sure):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    figure.suptitle(f"{report.name}: {report.said}", x=0.01, ha="left", fontsize=11)
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)
    return picture


def _draw_kept(axes: Any, report: QaReport, probabilities: Floats) -> None:
    for colour, miss in zip(COLOURS, misses_of(report.cases), strict=False):
        split = Split.of(report.cases, probabilities, miss)
        thresholds = np.quantile(split.right, np.linspace(0, 1, 201))
        wrong = [(split.wrong >= one).mean() for one in thresholds]
        right = [(split.right >= one).mean() for one in thresholds]
        said = f"{miss.replace('_', '-')} (AUROC {auroc(split):.3f})"
        axes.plot([0, *reversed(wrong), 1], [0, *reversed(right), 1], color=colour, label=said)
    axes.axhline(0.9, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("unanswerable questions answered")
    axes.set_ylabel("answerable questions answered")
    axes.legend(loc="lower right", frameon=False)


def _draw_risk(axes: Any, report: QaReport, probabilities: Floats) -> None:
    curve = curve_of(report.cases, probabilities)
    axes.plot([point.coverage for point in curve], [point.risk for point in curve], color=COLOURS[0])
    mixed = ", ".join(f"{share:.0%} {kind.replace('_', '-')}" for kind, share in MIX.items())
    axes.set_xlabel("answerable questions answered (coverage)")
    axes.set_ylabel("wrong answers among those given (risk)")
    axes.set_title(mixed, fontsize=9)


def _draw_calibration(axes: Any, report: QaReport, probabilities: Floats) -> None:
    weights = weights_of(report.cases)
    right = np.array([case.kind == "answerable" for case in report.cases], float)
    middles, shares = _bins(probabilities, right, weights)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    axes.plot(middles, shares, "o-", color=COLOURS[2], markersize=4)
    axes.set_xlabel("probability said")
    axes.set_ylabel("share that had an answer")


def _bins(
    said: Floats, right: Floats, weights: Floats, count: int = 10
) -> tuple[Sequence[float], Sequence[float]]:
    places = np.minimum((said * count).astype(int), count - 1)
    filled = [place for place in range(count) if (places == place).sum() >= 20]
    middles = [float(np.average(said[places == place], weights=weights[places == place])) for place in filled]
    shares = [float(np.average(right[places == place], weights=weights[places == place])) for place in filled]
    return middles, shares
