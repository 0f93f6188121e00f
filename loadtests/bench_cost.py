"""What going through us costs, before a lean LLM server: latency, requests and streams per core, memory."""

import statistics
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from loadtests.bench_plan import Plan, model_of
from loadtests.fast_llm import Pace
from loadtests.generator import Load, Seen
from loadtests.offered import percentile
from loadtests.offering import COMPLETIONS, checked, offer, offered
from loadtests.rows import DIRECT, OURS, WITH_RETRIEVAL
from loadtests.running import Server, going_first, on_one_cpu, printing_its_port, put_on, set_pace
from loadtests.traffic import asked

QUESTION = "How is the LLM server started, and which port does it listen on? Case {serial}."
AT_ONCE = Pace(deltas=16)
PACED = Pace(deltas=250, gap_ms=20)
CALLERS = 16
HALF_A_CORE = 750.0
"""Requests a second: half of the 1,500 that a core has to carry at least."""
STREAMS = (40, 80, 150, 250)
"""Streams at once: as many as a way carries in time; of few the fixed costs weigh. Gaps are of the first."""
FIRST = "the measured server is not preempted by load generator and LLM server: theirs are other machines"
ALONE = "by CPU time of the process, all processes on one CPU, so that nothing else slows its core"


def cost(plan: Plan) -> Iterator[str]:
    """Latency, CPU a request, CPU a frame: all ways in turn, round by round."""
    with printing_its_port("loadtests.fast_llm") as llm:
        # two cores that are full make first tokens late: the limit must not take that for a full LLM server
        business = plan.business([llm], "cost", LLM__MIN_IN_FLIGHT="512")
        with_documents = not plan.quick and business.prepare(plan.models)
        with plan.ways(llm, business) as ways:
            on = {WITH_RETRIEVAL: ways[OURS]} if with_documents else {}
            bench = Cost(plan, llm, {**ways, **on})
            for _ in range(plan.rounds):
                yield from bench.round()
            plan.found.tell("streams", bench.carried())
    plan.found.tell("per_core", f"{ALONE}, answers of 16 deltas that are not streamed")


class Cost:
    """One round after another, before a lean LLM server."""

    def __init__(self, plan: Plan, llm: Server, ways: Mapping[str, Server]) -> None:
        self._plan, self._llm, self._ways, self._found = plan, llm, ways, plan.found
        self._seconds = plan.either(0.8, 3.0)
        self._carried: dict[str, int] = {}

    def round(self) -> Iterator[str]:
        """Each measurement once on each way."""
        rates = {}
        for way, server in self._ways.items():
            yield f"one at a time, {way}"
            whole = self._load(way, server, stream=False, callers=1, pace=AT_ONCE).whole_ms
            ttft = self._load(way, server, stream=True, callers=1, pace=AT_ONCE).ttft_ms
            self._found.note(way, whole_p50=whole.p50, whole_p99=whole.p99)
            self._found.note(way, ttft_p50=ttft.p50, ttft_p99=ttft.p99)
            yield f"requests per core, {way}"
            rates[way] = self._throughput(way, server)
            with on_one_cpu(server, self._llm):
                self._per_core(way, server)
            yield f"streams, {way}"
            with self._plan.peer_may_fail(way, "streams", "gap_p99"):
                self._streams(way, server)
        for way, server in self._ways.items():
            yield f"half load, {way}"
            self._half_load(way, server, rates[OURS if way == DIRECT else way] / 2, "half")
            if way in (DIRECT, OURS):
                self._half_load(way, server, HALF_A_CORE, "fixed")

    def _load(self, way: str, server: Server, *, stream: bool, callers: int, pace: Pace) -> Seen:
        set_pace(self._llm, pace)
        load = Load(
            url=f"{server.url}{COMPLETIONS}",
            body=msgspec.Raw(msgspec.json.encode(asked(model_of(way), QUESTION, stream=stream))),
            callers=callers,
            seconds=self._seconds,
            warm_seconds=self._seconds * 0.15,
            spread_seconds=0.5 if pace.gap_ms else 0.0,
            deltas=_frames_due(way, pace) if stream else 0,
        )
        return put_on(load)

    def _throughput(self, way: str, server: Server) -> float:
        seen = self._load(way, server, stream=False, callers=CALLERS, pace=AT_ONCE)
        return seen.all_answers / seen.seconds

    def _per_core(self, way: str, server: Server) -> None:
        before = server.cpu_seconds
        seen = self._load(way, server, stream=False, callers=CALLERS, pace=AT_ONCE)
        self._found.note(way, per_core=seen.all_answers / (server.cpu_seconds - before))

    def carried(self) -> str:
        """With how many streams the CPU time of a frame was measured."""
        counts = ", ".join(f"{way} {streams}" for way, streams in self._carried.items())
        per_stream = f"of {PACED.deltas} frames each, every one arrived"
        return f"{ALONE}, of a frame with as many streams as were in time ({counts}), {per_stream}"

    def _streams(self, way: str, server: Server) -> None:
        _, gap = self._running(way, server, STREAMS[0])
        self._found.note(way, _late(gap), gap_p99=gap)
        with on_one_cpu(server, self._llm):
            self._most_streams(way, server)

    def _most_streams(self, way: str, server: Server) -> None:
        carried, *more = STREAMS
        per_core, gap = self._running(way, server, carried)
        void = _late(gap)
        for streams in more if not void else ():
            try:
                found, gap = self._running(way, server, streams)
            except RuntimeError:  # some were refused or cut short: more than it carries
                break
            if _late(gap):
                break
            per_core, carried = found, streams
        self._carried[way] = carried
        self._found.note(way, void, streams=per_core)

    def _running(self, way: str, server: Server, streams: int) -> tuple[float, float]:
        """Streams per core by CPU time with so many running; gap between frames (ms, 99th percentile)."""
        before = server.cpu_seconds
        seen = self._load(way, server, stream=True, callers=streams, pace=PACED)
        per_frame = (server.cpu_seconds - before) / seen.frames
        return PACED.gap_ms / 1000 / per_frame, seen.gap_ms.p99

    def _half_load(self, way: str, server: Server, rate: float, key: str) -> None:
        set_pace(self._llm, AT_ONCE)
        body = asked(model_of(way), QUESTION, stream=False)
        with going_first(server) as first:
            answers, void = checked(offer(offered(server.url, body, rate, self._seconds, patience=5.0)))
        self._found.tell(f"{key}_p50", FIRST if first else "the measured server takes turns with the others")
        failed = sum(one.ended != "whole" for one in answers)
        if failed and way in (DIRECT, OURS):
            raise RuntimeError(f"{way}: {failed} of {len(answers)} failed at half load")
        took = [one.end_ms - one.lag_ms for one in answers if one.ended == "whole"]
        figures = {f"{key}_p50": percentile(took, 0.5), f"{key}_p99": percentile(took, 0.99)}
        self._found.note(way, void, **figures)
        if way == OURS:
            self._found.tell(f"{key}_p99", f"{rate:,.0f}/s")


def _late(gap: float) -> str:
    """Why a figure says nothing when frames came so late (ms, 99th percentile)."""
    return f"gaps of {gap:.0f} ms (99th percentile) at a pace of 20" if gap >= 2 * PACED.gap_ms else ""


def _frames_due(way: str, pace: Pace) -> int:
    """Fewest frames of a whole answer: where text that may be a marker is held back some leave together."""
    return 1 if way == WITH_RETRIEVAL else pace.deltas


def process(plan: Plan) -> Iterator[str]:
    """Cold starts, and memory under a load that fills the process."""
    found = plan.found
    with printing_its_port("loadtests.fast_llm") as llm:
        business = plan.business([llm], "process")
        for _ in range(plan.either(1, 3)):
            yield "cold start"
            with business.started() as (server, seconds):
                spent = server.cpu_seconds
                time.sleep(1.0)
                found.note(OURS, cold_start=seconds, cold_cpu=spent, idle_mb=server.rss_mb)
                found.tell(
                    "idle_mb", f"all but {server.own_mb:.0f} MB are pages of files: libraries, the index"
                )
        with business.started() as (server, _):
            yield "memory at full load"
            _grow(plan, server)


def _grow(plan: Plan, server: Server) -> None:
    warm, seconds = plan.either((3.0, 7.0), (20.0, 60.0 * (plan.soak or 1.0)))
    body = msgspec.Raw(msgspec.json.encode(asked(OURS, QUESTION, stream=True)))
    load = Load(url=server.url + COMPLETIONS, body=body, callers=CALLERS, seconds=warm + seconds)
    samples = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(put_on, load)
        time.sleep(warm)
        while not running.done():
            samples.append((time.monotonic(), server.rss_mb))
            time.sleep(0.25)
        answers = running.result().all_answers
    plan.found.note(OURS, growth=slope(samples) * 600, loaded_mb=server.rss_mb)
    told = f"slope over {seconds:.0f} s after {warm:.0f} s of warming up, {answers:,} answers"
    plan.found.tell("growth", f"{told}; 30 minutes take `--soak`, a slope of a short time is mostly noise")


def slope(samples: list[tuple[float, float]]) -> float:
    """Rise per unit: the median of the slopes between each point and the one half the length behind it."""
    half = len(samples) // 2
    pairs = zip(samples, samples[half:], strict=False)
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)
