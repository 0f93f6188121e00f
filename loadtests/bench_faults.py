"""What callers notice when LLM replicas refuse everything, are killed, or stand still.

Three small simulated GPUs with slow prompts, so that at any moment some answers have not begun. Texts are
compared with what the simulated server says to each question, which is the same on every replica.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from loadtests.answer_text import expected
from loadtests.bench_plan import MODEL, Plan, model_of
from loadtests.offered import Asked, percentile
from loadtests.offering import WORDS, Offering, body_of, checked, offer, offered, offering
from loadtests.peers import installed, litellm_of
from loadtests.replica_fleet import Fleet
from loadtests.rows import OURS
from loadtests.running import Server
from loadtests.simulated_control import order
from loadtests.simulated_faults import Fault, Order
from loadtests.simulated_wire import tokens_of

GPU = (
    "--preset", "quick", "--set", "step_ms=10", "step_ms_per_answer=0.5", "max_num_seqs=32",
    "prefill_tokens_per_second=1000", "answer_tokens=200", "prefix_caching=false", f"model={MODEL}",
)  # fmt: skip
SHORT, LONG = 4, 90
"""Tokens of an answer: mostly before the first delta, or mostly after it."""
RATES = {SHORT: 45.0, LONG: 15.0}
"""Questions a second: about half of what two replicas take."""
DEAD_SECONDS = 1.5
ROUND_SECONDS = 3.0
"""From one kill to the next."""
OUTAGE_RATE = 100.0
PROMPT_TOKENS = tokens_of(f"<|user|>{WORDS}")
DEADLINE = 2.0
"""Longest wait for a first delta, in seconds, when a replica stands still."""


def outage(plan: Plan) -> Iterator[str]:
    """Both replicas answer 503 to everything: how many requests reach them for each of the callers'."""
    with Fleet(2, *GPU) as fleet, _servers(plan, fleet, "outage") as servers:
        for _ in range(plan.rounds):
            for way, server in servers.items():
                yield f"full outage, {way}"
                for replica in fleet.servers:
                    order(replica, Order(fault=Fault(kind="status", status=503)))
                before = fleet.counts().requests
                load = offered(server.url, body_of(model_of(way), SHORT), OUTAGE_RATE, plan.either(3.0, 6.0))
                asked, void = checked(offer(load))
                made = fleet.counts().requests - before
                plan.found.note(way, void, amplified=made / len(asked))
                for replica in fleet.servers:
                    order(replica, Order(clear=True))
                time.sleep(1.5)
    told = f"LLM requests by callers' requests at {OUTAGE_RATE:.0f}/s; below 1 where replicas are left alone"
    plan.found.tell("amplified", told)


def killed(plan: Plan) -> Iterator[str]:
    """SIGKILL of one replica after another under load, first with short answers, then with long ones."""
    with Fleet(3, *GPU) as fleet, _servers(plan, fleet, "killed") as servers:
        for _ in range(plan.rounds):
            for way, server in servers.items():
                for tokens in (SHORT, LONG):
                    yield f"killed, {tokens} tokens, {way}"
                    asked, void, kills = _killing(plan, fleet, server, body_of(model_of(way), tokens))
                    if tokens == SHORT:
                        _note_before(plan, way, void, asked, kills)
                    else:
                        _note_after(plan, way, void, asked, body_of(model_of(way), tokens))


def _killing(
    plan: Plan, fleet: Fleet, server: Server, body: dict[str, Any]
) -> tuple[list[Asked], str, list[float]]:
    """The answers, why they say nothing if so, and when replicas were killed."""
    kills = [ROUND_SECONDS * (number + 1) for number in range(plan.either(2, 3))]
    seconds = kills[-1] + ROUND_SECONDS
    load = offered(server.url, body, RATES[body["max_tokens"]], seconds, texts=True)
    with offering(load) as run:
        for number, at in enumerate(kills):
            run.wait_until(at)
            fleet.kill(number)
            run.wait_until(at + DEAD_SECONDS)
            fleet.start(number)
        return *checked(run.ended()), kills


def _note_before(plan: Plan, way: str, void: str, asked: Sequence[Asked], kills: Sequence[float]) -> None:
    calm = [one.ttft_ms for one in asked if one.due < kills[0] - 0.5 and one.ttft_ms]
    near = [one.ttft_ms for one in asked if any(-0.2 < one.due - at < 1.0 for at in kills) and one.ttft_ms]
    failed = sum(one.ended != "whole" and not one.ttft_ms for one in asked)
    added = percentile(near, 0.99) - percentile(calm, 0.99)
    plan.found.note(way, void, killed_failed=failed, killed_p99=added)
    if way == OURS:
        told = f"{len(kills)} kills among {len(asked)} questions a round, one of three replicas each time"
        plan.found.tell("killed_failed", told)
        plan.found.tell("killed_p99", "TTFT of questions within a second of a kill, less that of a calm time")


def _note_after(plan: Plan, way: str, void: str, asked: Sequence[Asked], body: dict[str, Any]) -> None:
    wrong = [one for one in asked if one.ended == "whole" and one.text != expected(body, one.serial)]
    silent = len(wrong) + sum(one.ended == "truncated" for one in asked)
    exact = sum(one.resumed and one.ended == "whole" and one not in wrong for one in asked)
    cut = silent + sum(one.ended in ("flagged", "broken") and one.ttft_ms > 0 for one in asked)
    plan.found.note(way, silent=silent)
    if exact + cut:
        plan.found.note(way, void, resumed=exact / (exact + cut) * 100)
    if way == OURS:
        plan.found.tell("resumed", f"{exact + cut} streams of the latest round lost their replica")


def frozen(plan: Plan) -> Iterator[str]:
    """SIGSTOP of one replica under load, hedges on: who is not answered, and what the hedges cost."""
    settings = {"LLM__HEDGE": "true", "LLM__FIRST_DELTA_DEADLINE": str(DEADLINE)}
    with Fleet(3, *GPU) as fleet, plan.business(fleet.servers, "frozen", **settings).started() as (server, _):
        for _ in range(plan.rounds):
            yield "a replica stands still"
            before = fleet.counts()
            load = offered(server.url, body_of(OURS, SHORT), RATES[SHORT], plan.either(7.0, 10.0), texts=True)
            with offering(load) as run:
                _freeze(run, fleet)
                asked, void = checked(run.ended())
            time.sleep(1.0)
            after = fleet.counts()
            made = (
                after.generated_tokens - before.generated_tokens + after.prompt_tokens - before.prompt_tokens
            )
            needed = len(asked) * (SHORT + PROMPT_TOKENS)
            lost = sum(one.ended != "whole" for one in asked)
            plan.found.note(OURS, void, frozen_lost=lost, hedge_tokens=(made / needed - 1) * 100)
            slowest = max(one.ttft_ms for one in asked)
            told = f"{len(asked)} questions, one of three replicas stopped for 3 s"
            plan.found.tell("frozen_lost", f"{told}; slowest TTFT {slowest:.0f} ms")


def _freeze(run: Offering, fleet: Fleet) -> None:
    run.wait_until(3.0)
    with fleet.stopped(0):
        run.wait_until(6.0)


@contextmanager
def _servers(plan: Plan, fleet: Fleet, name: str) -> Iterator[dict[str, Server]]:
    """Ours, and LiteLLM if it is there: it alone of the peers knows several replicas."""
    with ExitStack() as stack:
        found = {OURS: stack.enter_context(plan.business(fleet.servers, name).started())[0]}
        if plan.peers and not plan.quick and installed():
            urls = [replica.url for replica in fleet.servers]
            found["LiteLLM"] = stack.enter_context(litellm_of(urls, plan.var))
        yield found
