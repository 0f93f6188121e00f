"""Every figure of the benchmark: what it is called, what must be reached, what is aimed at."""

from loadtests.rows import Figure

COST = (
    Figure("half_p50", "added latency p50, half load", "ms", floor=1.0, aim=0.5, added=True),
    Figure("half_p99", "added latency p99, half load", "ms", floor=3.0, aim=1.5, added=True),
    Figure("fixed_p50", "added latency p50, 750 requests/s", "ms", added=True),
    Figure("fixed_p99", "added latency p99, 750 requests/s", "ms", added=True),
    Figure("whole_p50", "added latency p50, one at a time", "ms", added=True),
    Figure("whole_p99", "added latency p99, one at a time", "ms", added=True),
    Figure("ttft_p50", "added TTFT p50, c = 1", "ms", floor=1.0, aim=0.4, added=True),
    Figure("ttft_p99", "added TTFT p99, c = 1", "ms", floor=3.0, aim=0.8, added=True),
    Figure("gap_p99", "added gap between frames p99", "ms", floor=1.0, aim=0.3, added=True),
    Figure("per_core", "requests/s per core, 1 KB", "1/s", "higher", 1500.0, 3000.0),
    Figure("streams", "SSE streams per core, 50 frames/s", "streams", "higher", 400.0, 1000.0),
)
BATCH = (
    Figure("batch", "throughput / direct, 128 streams, 8B", "%", "higher", 97.0, 99.5),
    Figure("batch_tokens", "tokens/s, 128 streams, 8B", "1/s", "higher"),
    Figure("batch_4", "the same, 4 tokens a frame", "%", "higher", 97.0, 99.5),
    Figure("batch_4_tokens", "tokens/s, 4 tokens a frame", "1/s", "higher"),
)
OVERLOAD = (
    Figure("peak", "goodput at best", "1/s", "higher"),
    Figure("kept_2", "goodput kept at 2x offered load", "%", "higher", 95.0, 99.0),
    Figure("kept_5", "goodput kept at 5x offered load", "%", "higher", 90.0, 97.0),
    Figure("kept_10", "goodput kept at 10x offered load", "%", "higher", 85.0, 95.0),
    Figure("shed_p99", "shed answer p99", "ms", floor=20.0, aim=5.0),
    Figure("shed_cpu", "CPU a question at 10x offered load", "ms"),
    Figure("polite", "polite key's attainment, 10x flood", "%", "higher", 99.0, 99.9),
)
FAULTS = (
    Figure("amplified", "retry amplification, full outage", "x", floor=1.2, aim=1.1),
    Figure("killed_failed", "killed before first delta: failures", "answers", floor=0.0, aim=0.0),
    Figure("killed_p99", "killed before first delta: added p99", "ms", floor=500.0, aim=100.0),
    Figure("frozen_lost", "frozen before first delta: lost", "answers", floor=0.0, aim=0.0),
    Figure("hedge_tokens", "hedges' extra tokens", "%", floor=3.0, aim=3.0),
    Figure("silent", "killed mid-stream: silent truncations", "answers", floor=0.0, aim=0.0),
    Figure("resumed", "killed mid-stream: resumed exactly", "%", "higher", aim=99.0),
)
ENDS = (
    Figure("freed_p99", "hang-up -> LLM slot free p99", "ms", floor=1000.0, aim=250.0),
    Figure("leaked", "counters leaked by hang-ups", "count", floor=0.0, aim=0.0),
    Figure("rolled_llm", "LLM replicas restarted: failed, cut", "answers", floor=0.0, aim=0.0),
    Figure("rolled_us", "our workers restarted: failed, cut", "answers", floor=0.0, aim=0.0),
)
PROCESS = (
    Figure("idle_mb", "memory of one worker, idle", "MB", floor=200.0, aim=120.0),
    Figure("growth", "memory growth at full load", "MB/10 min", floor=1.0, aim=0.0),
    Figure("loaded_mb", "memory after the load", "MB"),
    Figure("cold_start", "cold start to /healthz", "s", floor=3.0),
    Figure("cold_cpu", "cold start, CPU time", "s"),
)
FIGURES = COST + BATCH + OVERLOAD + FAULTS + ENDS + PROCESS
