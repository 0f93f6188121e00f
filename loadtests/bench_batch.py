"""How much of an LLM server's throughput is left behind one worker: 128 streams, 8B on a simulated H100."""

import time
from collections.abc import Iterator
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
LATE_SHARE = 0.01
"""Share of late steps beyond which the machine was too small for the simulated server."""


def batch(plan: Plan) -> Iterator[str]:
    """Tokens a second, all ways in turn."""
    found, seconds = plan.found, plan.either(3.0, 6.0)
    with (
        replicas(1, "--preset", "h100-8b", "--set", f"model={MODEL}") as (llm,),
        plan.ways(llm, plan.business([llm], "batch")) as ways,
    ):
        for _ in range(plan.rounds):
            direct = 0.0
            for way, server in ways.items():
                yield f"{STREAMS} streams, {way}"
                rate, void = tokens_per_second(llm, server, way, seconds)
                direct = rate if way == DIRECT else direct
                found.note(way, void, batch_tokens=rate, batch=rate / direct * 100)
    found.tell("batch", f"{STREAMS} callers in turn, {TOKENS} tokens each, every frame arrived")


def tokens_per_second(llm: Server, server: Server, way: str, seconds: float) -> tuple[float, str]:
    """Tokens that the LLM server made each second once all streams run, and why that says nothing, if so."""
    warm = seconds / 2
    load = Load(
        url=server.url + COMPLETIONS,
        body=msgspec.Raw(msgspec.json.encode(body_of(model_of(way), TOKENS))),
        callers=STREAMS,
        seconds=warm + seconds + 0.5,
        deltas=TOKENS,
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
