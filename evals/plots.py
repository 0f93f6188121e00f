"""Pictures of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np

from evals.comparing import CHANCE
from evals.measures import difference, interval
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


def draw_ablation(report: Report, path: Path) -> Path:
    """`<result file>.png`: how much each variant differs from the first, by measure, with its interval."""
    plt = _pyplot()
    as_is, *variants = report.scores
    measures = list(report.scores[as_is])
    height = 1.6 + 0.34 * len(variants)
    figure, all_axes = plt.subplots(
        1, len(measures), figsize=(3.2 + 2.4 * len(measures), height), sharey=True, layout="constrained"
    )
    for axes, measure in zip(all_axes, measures, strict=True):
        found = [difference(report.scores[one][measure], report.scores[as_is][measure]) for one in variants]
        places = np.arange(len(variants))
        errors = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
        colours = [COLOURS[0] if one.p < CHANCE else COLOURS[4] for one in found]
        axes.errorbar(
            [one.mean for one in found], places, xerr=errors, fmt="none", ecolor="#666666", capsize=2
        )
        axes.scatter([one.mean for one in found], places, c=colours, zorder=3)
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(measure, fontsize=10)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_yticks(range(len(variants)), variants)
    all_axes[0].invert_yaxis()
    figure.suptitle(f"{report.name}: less the assistant as it is (blue: p < {CHANCE})", fontsize=11)
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
