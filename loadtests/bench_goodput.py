"""How much of the good answers is left when more is asked than the LLM tier can take, and who gets them.

The LLM tier is a small simulated GPU, so that the callers, it and we fit on a small machine. An answer is
good if its first token comes within a second and its last within three, from when it was due to be asked.
"""

import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from loadtests.bench_plan import MODEL, Plan, model_of
from loadtests.bench_plot import draw_goodput
from loadtests.figures import RESULTS
from loadtests.offered import Flow, Slo, attainment, goodput_of, percentile
from loadtests.offering import body_of, checked, offer, offered
from loadtests.rows import DIRECT, OURS
from loadtests.running import Server, waited_for
from loadtests.simulated_control import told
from loadtests.simulated_llm import replicas

SLO = Slo(ttft_ms=1000, total_ms=3000)
TOKENS = 32
SLOTS = 16
STEP_MS, STEP_MS_PER_ANSWER = 20.0, 0.5
GPU = (f"step_ms={STEP_MS}", f"step_ms_per_answer={STEP_MS_PER_ANSWER}", f"max_num_seqs={SLOTS}")
CAPACITY = SLOTS * 1000 / (STEP_MS + STEP_MS_PER_ANSWER * SLOTS) / TOKENS
"""Answers a second with all slots in use: 18."""
CALM_SECONDS = 240.0
"""Longest time that the LLM server may work on once nobody asks: a relay may not pass hang-ups on."""
OURS_WITHOUT = "no admission"
ADMISSION = {"LLM__QUEUE_DEADLINE": "0.75", "LLM__START_IN_FLIGHT": str(SLOTS)}
"""Of the time to a first token that is good, what the LLM server itself does not need."""
NO_ADMISSION = {
    "LLM__START_IN_FLIGHT": "100000",
    "LLM__MIN_IN_FLIGHT": "100000",
    "LLM__MAX_IN_FLIGHT": "100000",
    "LLM__TOLERATED_QUEUE": "1000000",
    "LLM__TOLERATED_PACE": "1000000",
    "LLM__QUEUE_DEADLINE": "1000",
    "LLM__FIRST_DELTA_DEADLINE": "1000",
}
KEPT = (2.0, 5.0, 10.0)
LADDER = (0.5, 0.8, 1.0, 1.5, *KEPT)
SHORT_LADDER = (1.0, *KEPT)
POLITE_SHARE, FLOOD_SHARE = 0.3, 10.0


def goodput(plan: Plan) -> Iterator[str]:
    """The ladder of offered loads on each way, the polite key, the plot."""
    with replicas(1, "--preset", "quick", "--set", *GPU, f"model={MODEL}", "answer_tokens=200") as (llm,):
        ladder = Ladder(plan, llm)
        yield from ladder.climbed()
        yield from _fairness(plan, llm)
    draw_goodput(ladder.curves, CAPACITY, RESULTS / "goodput.png")
    gpu = f"a simulated GPU of {SLOTS} slots, {CAPACITY:.0f} answers/s of {TOKENS} tokens"
    for key in ("peak", "kept_2", "kept_5", "kept_10"):
        plan.found.tell(key, f"{gpu}; good: first token in 1 s, all in 3 s")


class Ladder:
    """The offered loads, in times of the capacity, and `curves`: goodput by way and offered load."""

    def __init__(self, plan: Plan, llm: Server) -> None:
        self._plan, self._llm = plan, llm
        self._warm, self._seconds = plan.either((2.0, 7.0), (3.0, 13.0))
        self.curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))

    def climbed(self) -> Iterator[str]:
        """Ours with admission and without in turn, all rounds; then, in a full run, the others once."""
        plan, llm = self._plan, self._llm
        on, off = (plan.business([llm], name, **settings) for name, settings in BOTH.items())
        with on.started() as (ours, _), off.started() as (without, _):
            for _ in range(plan.either(1, min(2, plan.rounds))):
                for way, server in ((OURS, ours), (OURS_WITHOUT, without)):
                    yield from self._round(way, server, plan.either(SHORT_LADDER, LADDER))
        if plan.quick:
            return
        with ExitStack() as stack:
            for way, server in {DIRECT: llm, **plan.others(llm, stack)}.items():
                with plan.peer_may_fail(way, "peak"):
                    yield from self._round(way, server, SHORT_LADDER)

    def _round(self, way: str, server: Server, ladder: tuple[float, ...]) -> Iterator[str]:
        good, shed, void = {}, list[float](), ""
        body = body_of(OURS if way == OURS_WITHOUT else model_of(way), TOKENS)
        for times in ladder:
            yield f"{times:g}x, {way}"
            load = offered(server.url, body, CAPACITY * times, self._seconds, patience=SLO.total_ms / 1000)
            before = server.cpu_seconds
            asked, why = checked(offer(load))
            spent = (server.cpu_seconds - before) / len(asked) * 1000
            void = void or why
            good[times] = goodput_of(asked, SLO, self._warm, self._seconds)
            self.curves[way][times].append(good[times])
            shed += [one.end_ms - one.lag_ms for one in asked if one.ended == "refused"]
            waited_for(lambda: told(self._llm).unfinished == 0, CALM_SECONDS, 0.05)
        peak = max(good.values())
        kept = {f"kept_{times:g}": good[times] / peak * 100 if peak else 0.0 for times in KEPT}
        self._plan.found.note(way, void, peak=peak, shed_cpu=spent, **kept)
        if shed and way == OURS:
            self._plan.found.note(way, void, shed_p99=percentile(shed, 0.99))
            self._plan.found.tell(
                "shed_p99",
                "from when they were sent; all refusals, those too that waited in the queue before",
            )


BOTH = {"admission": ADMISSION, "without": NO_ADMISSION}


def _fairness(plan: Plan, llm: Server) -> Iterator[str]:
    """One key asks for a part of the capacity, another for ten times all of it."""
    business = plan.business([llm], "fairness", **ADMISSION)
    keys = [_key(business.command, business.env(0), name) for name in ("polite", "flood")]
    shares = zip((POLITE_SHARE, FLOOD_SHARE), keys, strict=True)
    flows = tuple(Flow(rate=CAPACITY * share, key=key) for share, key in shares)
    body, seconds = body_of(OURS, TOKENS), plan.either(12.0, 17.0)
    with business.started() as (server, _):
        for _ in range(plan.rounds):
            yield "a polite key beside a flood"
            asked, void = checked(offer(offered(server.url, body, 0, seconds, flows=flows, patience=3.0)))
            polite = [one for one in asked if one.flow == 0 and one.due > 2.0]
            plan.found.note(OURS, void, polite=attainment(polite, SLO) * 100)
            plan.found.tell(
                "polite", f"about {CAPACITY * POLITE_SHARE * (seconds - 2):.0f} questions a round"
            )


def _key(command: str, env: dict[str, str], name: str) -> str:
    made: subprocess.CompletedProcess[Any] = subprocess.run(
        [command, "keys", "create", name], env=env, capture_output=True, check=True
    )
    return str(made.stdout.decode().strip())
