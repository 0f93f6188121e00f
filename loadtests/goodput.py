"""Goodput against offered load, with and without admission, in virtual time: a table and a plot.

    python -m loadtests.goodput          # about two minutes; loadtests/results/goodput_h100.png, goodput.json

Callers come at random whatever became of the others (open loop). An answer is good when its first token came
within the objective and its tokens kept the pace. The figures are counts of a simulation, the same on every
machine; `simulated_llm.toml` says where the server's timing comes from.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from loadtests.figures import RESULTS, Row, write
from loadtests.overload import FREE, RULES, Callers, Run, Slo

SLO = Slo()
CAPACITY = 38.0
"""Requests per second at which the simulated H100 has its best goodput; `times` below are of it."""
TIMES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
KEPT = {2.0: (95.0, 99.0), 5.0: (90.0, 97.0), 10.0: (85.0, 95.0)}
"""Floor and aim of the share of the peak that is kept, in percent, by offered load."""
SECONDS, WARM = 80.0, 20.0
SEEDS = (1, 2, 3)
FREE_UP_TO = 3.0
"""Without admission nothing is good beyond this load, and the simulation of it takes long."""


def goodput(times: float, *, admission: bool) -> list[float]:
    """Good answers per second at this load, one figure a seed."""
    rules = RULES if admission else FREE
    callers = [Callers(rate=times * CAPACITY)]
    runs = (Run(rules, callers, SECONDS, seed=seed).play() for seed in SEEDS)
    return [run.goodput(SLO, WARM) for run in runs]


def polite_attainment() -> list[float]:
    """Percent of a polite key's requests that are good while another one asks ten times what fits."""
    callers = [Callers(rate=10 * CAPACITY, key="flood"), Callers(rate=CAPACITY / 10, key="polite")]
    runs = (Run(RULES, callers, SECONDS, seed=seed).play() for seed in SEEDS)
    return [100 * run.attainment(SLO, WARM, "polite") for run in runs]


def rows_of(ours: dict[float, list[float]], free: dict[float, list[float]]) -> list[Row]:
    """What is kept of the peak, beside what is kept without admission."""
    peak = max(statistics.median(found) for found in ours.values())
    rows = [Row.of("peak goodput", "answers/s", "higher", max(ours.values(), key=statistics.median))]
    for times, (floor, aim) in KEPT.items():
        kept = [100 * found / peak for found in ours[times]]
        direct = 100 * statistics.median(free[times]) / peak if times in free else None
        name = f"goodput kept at {times:g}x"
        rows.append(Row.of(name, "%", "higher", kept, baseline=direct, floor=floor, aim=aim))
    polite = polite_attainment()
    rows.append(Row.of("polite key while another floods 10x", "%", "higher", polite, floor=99, aim=99.9))
    return rows


def draw(ours: dict[float, list[float]], free: dict[float, list[float]], path: Path) -> None:
    """The plot: medians with their spread."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, found, colour in (("with admission", ours, "tab:blue"), ("without", free, "tab:red")):
        loads = [times * CAPACITY for times in found]
        axes.plot(loads, [statistics.median(one) for one in found.values()], "o-", color=colour, label=name)
        low, high = ([pick(one) for one in found.values()] for pick in (min, max))
        axes.fill_between(loads, low, high, color=colour, alpha=0.2)
    axes.set(xscale="log", ylim=(0, None), xlabel="offered load, requests/s", ylabel="goodput, answers/s")
    ticks = [times * CAPACITY for times in (0.25, 0.5, 1, 2, 5, 10)]
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_title(
        f"Good: first token within {SLO.ttft:g} s, {1000 * SLO.tpot:.0f} ms a token (simulated H100, 8B)"
    )
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(times: Sequence[float] = TIMES) -> None:
    """Simulate, print, draw."""
    ours = {one: goodput(one, admission=True) for one in times}
    free = {one: goodput(one, admission=False) for one in times if one <= FREE_UP_TO}
    write("goodput", rows_of(ours, free))
    draw(ours, free, RESULTS / "goodput_h100.png")


if __name__ == "__main__":
    main()
