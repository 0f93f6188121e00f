"""Turns what the rounds saw into result rows: what we add, beside the direct figure of the same round."""

import statistics
from collections import defaultdict
from typing import Literal

from loadtests.figures import Row

PUBLISHED_WHOLE = {"Bifrost": 0.53, "Portkey": 2.5, "LiteLLM (Python)": 4.34}
"""Added ms per request as measured by cuihuan/llm-gateway-bench, one request at a time."""
TARGETS = {
    "whole_p50": (1.0, 0.5),
    "whole_p99": (3.0, 1.5),
    "ttft_p50": (1.0, 0.4),
    "ttft_p99": (3.0, 0.8),
    "gap_p99": (1.0, 0.3),
    "per_core": (1500.0, 3000.0),
    "streams": (400.0, 1000.0),
}
"""Floor and aim of the plain relay, by figure."""
ADDED = {
    "whole_p50": "added latency p50",
    "whole_p99": "added latency p99",
    "ttft_p50": "added TTFT p50, streamed",
    "ttft_p99": "added TTFT p99, streamed",
    "gap_p99": "added gap p99, streamed",
}
RATES = {"per_core": "requests/s per core", "streams": "SSE streams per core, 50 frames/s"}
NOTES = {
    "streams": "from the CPU time a frame costs with {streams} streams running; every frame of each arrived",
    "per_core": "answers per second of CPU time of the process; `direct` is the lean LLM server's own",
}


class Rounds:
    """Figures by way (`direct`, an assistant, `ours`) and name, one of each a round."""

    def __init__(self) -> None:
        self._figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def note(self, way: str, **figures: float) -> None:
        """Add a round's figures."""
        for name, figure in figures.items():
            self._figures[way][name].append(figure)

    def add(self, other: "Rounds") -> None:
        """Take over the figures of another."""
        for way, named in other._figures.items():
            for name, figures in named.items():
                self._figures[way][name].extend(figures)

    def of(self, way: str, name: str) -> list[float]:
        """All rounds of one figure."""
        return self._figures[way][name]

    def added(self, way: str, name: str) -> list[float]:
        """Ours less direct, round by round."""
        pairs = zip(self.of(way, name), self.of("direct", name), strict=True)
        return [ours - direct for ours, direct in pairs]


def rows_of(found: Rounds, assistants: list[str], streams: int) -> list[Row]:
    """All rows of a run."""
    rows = []
    for assistant in assistants:
        kind = "retrieval off" if assistant == "plain" else "retrieval on"
        rows += [_added(found, assistant, name, f"{said}, {kind}") for name, said in ADDED.items()]
        rows += [_rate(found, assistant, name, f"{said}, {kind}", streams) for name, said in RATES.items()]
    return [*rows, *_process_rows(found)]


def _targets(assistant: str, name: str) -> dict[str, float | None]:
    floor, aim = TARGETS[name] if assistant == "plain" else (None, None)
    return {"floor": floor, "aim": aim}


def _added(found: Rounds, assistant: str, name: str, said: str) -> Row:
    peers = PUBLISHED_WHOLE if (name, assistant) == ("whole_p50", "plain") else {}
    return Row.of(
        said,
        "ms",
        "lower",
        found.added(assistant, name),
        baseline=statistics.median(found.of("direct", name)),
        peers=peers,
        **_targets(assistant, name),
    )


def _rate(found: Rounds, assistant: str, name: str, said: str, streams: int) -> Row:
    return Row.of(
        said,
        "1/s" if name == "per_core" else "streams",
        "higher",
        found.of(assistant, name),
        baseline=statistics.median(found.of("direct", name)),
        note=NOTES[name].format(streams=streams) if assistant == "plain" else "",
        **_targets(assistant, name),
    )


def _process_rows(found: Rounds) -> list[Row]:
    wanted: list[tuple[str, str, str, float | None, Literal["lower", "higher"]]] = [
        ("idle_mb", "memory when idle", "MB", 200.0, "lower"),
        ("loaded_mb", "memory after the load", "MB", None, "lower"),
        ("cold_start", "cold start to /healthz", "s", 3.0, "lower"),
        ("cold_cpu", "cold start, CPU time", "s", None, "lower"),
    ]
    return [
        Row.of(said, unit, better, found.of("ours", name), floor=floor)
        for name, said, unit, floor, better in wanted
    ]
