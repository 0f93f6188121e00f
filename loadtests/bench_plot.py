"""The picture of goodput against offered load."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

COLOURS = {"plain": "#1f77b4", "no admission": "#d62728", "direct": "#888888"}
NAMES = {"plain": "ours", "no admission": "ours without admission", "direct": "the LLM server alone"}
OTHERS = ("#2ca02c", "#9467bd", "#8c564b")


def draw_goodput(curves: Mapping[str, Mapping[float, Sequence[float]]], capacity: float, path: Path) -> None:
    """Median and extremes of each way; both axes in times of the capacity (answers/s)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    others = iter(OTHERS)
    for way, curve in curves.items():
        times = sorted(curve)
        found = [[good / capacity for good in curve[one]] for one in times]
        middle = [statistics.median(rounds) for rounds in found]
        (line,) = axes.plot(
            times,
            middle,
            marker="o",
            markersize=4,
            color=COLOURS.get(way) or next(others),
            label=NAMES.get(way, way),
        )
        lows, highs = [min(rounds) for rounds in found], [max(rounds) for rounds in found]
        axes.fill_between(times, lows, highs, color=line.get_color(), alpha=0.15)
    axes.set_xscale("log")
    ticks = sorted({times for curve in curves.values() for times in curve})
    axes.set_xticks(ticks, [f"{one:g}x" for one in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.set_xlabel(f"offered load, in times of the capacity ({capacity:.0f} answers/s)")
    axes.set_ylabel("good answers, in times of the capacity")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
