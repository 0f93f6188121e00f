"""How much of an LLM server's throughput is left behind one worker: 128 streams, 8B on a simulated H100."""

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from loadtests.bench_plan import MODEL, Plan, model_of
from loadtests.generator import Load
from loadtests.offering import COMPLETIONS, body_of
from loadtests.rows import DIRECT
from loadtests.running import Server, put_on
from loadtests.simulated_control import counts_of
from loadtests.simulated_llm import replicas

STREAMS = 128
TOKENS = 100
INTERVALS = {1: "batch", 4: "batch_4"}
"""Tokens in a frame, and the figure."""
LATE_SHARE = 0.01
"""Share of late steps beyond which the machine was too small for the simulated server."""


def batch(plan: Plan) -> Iterator[str]:
    """Tokens a second, all ways in turn: a frame for each token, then vLLM's way of several in a frame."""
    intervals = {1: "batch"} if plan.quick else INTERVALS
    for interval, key in intervals.items():
        arguments = (f"model={MODEL}", f"stream_interval={interval}")
        with (
            replicas(1, "--preset", "h100-8b", "--set", *arguments) as (llm,),
            plan.ways(llm, plan.business([llm], "batch"), peers=not plan.quick) as ways,
        ):
            for _ in range(plan.rounds):
                yield from _round(plan, llm, ways, interval, key)
        plan.found.tell(key, f"{STREAMS} callers in turn, {TOKENS} tokens each, every frame arrived")


def _round(plan: Plan, llm: Server, ways: Mapping[str, Server], interval: int, key: str) -> Iterator[str]:
    direct = 0.0
    for way, server in ways.items():
        yield f"{STREAMS} streams, {interval} tokens a frame, {way}"
        with plan.peer_may_fail(way, key):
            rate, void = tokens_per_second(llm, server, way, plan.either(3.0, 6.0), interval)
            direct = rate if way == DIRECT else direct
            plan.found.note(way, void, **{key: rate / direct * 100, f"{key}_tokens": rate})


def tokens_per_second(
    llm: Server, server: Server, way: str, seconds: float, interval: int
) -> tuple[float, str]:
    """Tokens that the LLM server made each second once all streams run, and why that says nothing, if so.

    Raises RuntimeError when an answer lacked a frame.
    """
    warm = seconds / 2
    load = Load(
        url=server.url + COMPLETIONS,
        body=msgspec.Raw(msgspec.json.encode(body_of(model_of(way), TOKENS))),
        callers=STREAMS,
        seconds=warm + seconds + 0.5,
        deltas=1 + math.ceil((TOKENS - 1) / interval),
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(put_on, load)
        time.sleep(warm + 0.5)
        before, began = counts_of(llm), time.perf_counter()
        time.sleep(seconds)
        after, ended = counts_of(llm), time.perf_counter()
        running.result()
    late = (after.late_steps - before.late_steps) / max(1, after.steps - before.steps)
    void = f"{late:.0%} of the simulated server's steps were late" if late > LATE_SHARE else ""
    return (after.generated_tokens - before.generated_tokens) / (ended - began), void
