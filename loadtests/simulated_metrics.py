"""What the simulated LLM server counts, under vLLM's names, and how late its steps are."""

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

import msgspec

from loadtests.simulated_batching import Batching, Step

LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
GAP = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": TTFT,
    "vllm:inter_token_latency_seconds": GAP,
    "vllm:request_time_per_output_token_seconds": GAP,
    "vllm:e2e_request_latency_seconds": LATENCY,
    "vllm:request_queue_time_seconds": LATENCY,
    "vllm:request_prefill_time_seconds": LATENCY,
    "vllm:request_decode_time_seconds": LATENCY,
    "vllm:iteration_tokens_total": TOKENS,
}
REASONS = ("stop", "length", "abort", "error")
LATE_SHARE = 0.1
TIMER_SECONDS = 0.001
"""A step counts as late beyond a tenth of its time; but the event loop's timers know milliseconds only."""
WINDOW = 2048


class Counts(msgspec.Struct):
    """How many of what, since the start. `left`: the caller hung up; `foreign`: a continued text that this
    server never said."""

    requests: int = 0
    finished: int = 0
    left: int = 0
    rejected: int = 0
    refused: int = 0
    foreign: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    late_steps: int = 0


@dataclass
class Histogram:
    """Prometheus' histogram."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float, times: int = 1) -> None:
        """Note a value, so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def lines(self, name: str, labels: str) -> list[str]:
        """Prometheus' text."""
        found, lines = 0, [f"# TYPE {name} histogram"]
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            found += count
            shown = "+Inf" if bound == math.inf else str(float(bound))
            lines.append(f'{name}_bucket{{{labels},le="{shown}"}} {float(found)}')
        return [*lines, f"{name}_sum{{{labels}}} {self.total}", f"{name}_count{{{labels}}} {float(found)}"]


class Lateness:
    """Seconds by which the latest steps ended after they should have."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=WINDOW)

    def note(self, late: float, step_seconds: float) -> bool:
        """Whether the step was late."""
        self._latest.append(max(0.0, late))
        return late > max(LATE_SHARE * step_seconds, TIMER_SECONDS)

    def percentile(self, share: float) -> float:
        """By nearest rank, of the latest 2,048 steps; 0 before the first."""
        ordered = sorted(self._latest)
        return ordered[round(share * (len(ordered) - 1))] if ordered else 0.0


class Meters:
    """Everything /metrics tells."""

    def __init__(self, model: str) -> None:
        self.counts = Counts()
        self.reasons = dict.fromkeys(REASONS, 0)
        self.histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}
        self.lateness = Lateness()
        self._labels = f'engine="0",model_name="{model}"'

    def observe(self, name: str, seconds: float) -> None:
        """Note a time under vLLM's name, without its prefix and unit."""
        self.histograms[f"vllm:{name}_seconds"].observe(seconds)

    def stepped(self, step: Step, late: float, since_last: float, firsts: int) -> None:
        """A step has ended, `since_last` seconds after the one before (0 if none was just before).

        For `firsts` of its tokens there was none before them.
        """
        counts = self.counts
        counts.steps += 1
        counts.late_steps += self.lateness.note(late, step.seconds)
        counts.generated_tokens += len(step.speakers)
        self.histograms["vllm:iteration_tokens_total"].observe(step.tokens)
        if since_last:
            gaps = len(step.speakers) - firsts
            self.histograms["vllm:inter_token_latency_seconds"].observe(since_last, gaps)

    def text(self, batching: Batching) -> bytes:
        """Prometheus' text."""
        counts = self.counts
        waiting, labels = len(batching.waiting), self._labels
        values: dict[str, float] = {
            "vllm:num_requests_running": batching.running,
            "vllm:num_requests_waiting": waiting,
            "vllm:kv_cache_usage_perc": batching.kv_usage,
            "vllm:prompt_tokens_total": counts.prompt_tokens,
            "vllm:prompt_tokens_cached_total": counts.cached_tokens,
            "vllm:generation_tokens_total": counts.generated_tokens,
            "vllm:prefix_cache_queries_total": counts.prompt_tokens,
            "vllm:prefix_cache_hits_total": counts.cached_tokens,
            "vllm:num_preemptions_total": batching.preemptions,
            "simulated_steps_total": counts.steps,
            "simulated_late_steps_total": counts.late_steps,
            "simulated_step_lateness_seconds": self.lateness.percentile(0.99),
            "simulated_step_lateness_max_seconds": self.lateness.percentile(1.0),
        }
        lines = []
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE {name} {kind}", f"{name}{{{labels}}} {float(value)}"]
        lines += self._labelled("vllm:request_success_total", "finished_reason", self.reasons)
        rejected = {"max_num_queued_reqs": counts.rejected}
        lines += self._labelled("vllm:admission_rejections_total", "reason", rejected)
        for name, histogram in self.histograms.items():
            lines += histogram.lines(name, labels)
        return "\n".join([*lines, ""]).encode()

    def _labelled(self, name: str, label: str, values: dict[str, int]) -> list[str]:
        lines = [f'{name}{{{self._labels},{label}="{key}"}} {float(value)}' for key, value in values.items()]
        return [f"# TYPE {name} counter", *lines]
