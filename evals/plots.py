"""Pictures of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np

from evals.measures import interval
from evals.report import Report

COLOURS = ("#1b6ca8", "#e07a3f", "#6a994e", "#8e6bb0", "#9a9a9a", "#c44569")


def draw(report: Report, path: Path) -> Path | None:
    """`<result file>.png`: each measure of each system with its interval; None if there are no scores."""
    if not report.scores:
        return None
    plt = _pyplot()
    measures = list(next(iter(report.scores.values())))
    figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
    width = 0.84 / len(report.scores)
    for place, (system, scores) in enumerate(report.scores.items()):
        spreads = [interval(list(scores[measure].values())) for measure in measures]
        x = np.arange(len(measures)) - 0.42 + width * (place + 0.5)
        means = [one.mean for one in spreads]
        errors = [[one.mean - one.low for one in spreads], [one.high - one.mean for one in spreads]]
        colour = COLOURS[place % len(COLOURS)]
        axes.bar(x, means, width * 0.92, label=system, color=colour, alpha=0.9)
        axes.errorbar(x, means, yerr=errors, fmt="none", ecolor="#333333", elinewidth=0.9, capsize=2)
        for at, spread in zip(x, spreads, strict=True):
            said = f"{spread.mean:.3f}".lstrip("0")
            axes.text(at, spread.high + 0.012, said, ha="center", va="bottom", fontsize=7.5)
    axes.set_xticks(range(len(measures)), measures)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("mean over the questions, 95 % interval")
    axes.set_title(f"{report.name}: {report.said}", loc="left", fontsize=11)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=len(report.scores), loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False)
    return _saved(figure, path.with_suffix(".png"))


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    _pyplot().close(figure)
    return path


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    return pyplot
