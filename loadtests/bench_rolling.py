"""Rolling restarts under load, of the LLM replicas one by one and of our workers: what callers lose."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from loadtests.answer_text import expected
from loadtests.bench_plan import MODEL, Plan
from loadtests.offered import Asked
from loadtests.offering import body_of, checked, offered, offering
from loadtests.replica_fleet import Fleet
from loadtests.rows import OURS
from loadtests.running import Server, waited_for

REPLICAS, WORKERS = 3, 2
SLOTS, TOKENS = 8, 8
STEP_MS, STEP_MS_PER_ANSWER = 10.0, 0.5
GPU = (
    "--preset", "quick", "--set", f"step_ms={STEP_MS}", f"step_ms_per_answer={STEP_MS_PER_ANSWER}",
    f"max_num_seqs={SLOTS}", "answer_tokens=200", f"model={MODEL}",
)  # fmt: skip
CAPACITY = REPLICAS * SLOTS * 1000 / (STEP_MS + STEP_MS_PER_ANSWER * SLOTS) / TOKENS
"""Answers a second of all replicas: 214."""
SHARE = 0.7 * (REPLICAS - 1) / REPLICAS
"""Offered, of all replicas' capacity: 70 % of those that are left while one restarts."""
PAUSE = 1.0
"""Seconds between two restarts."""


def rolling(plan: Plan) -> Iterator[str]:
    """Restarts for as long as the load lasts: first of the replicas, then of the workers."""
    questions = plan.either(500, 20_000)
    seconds = questions / (CAPACITY * SHARE)
    with Fleet(REPLICAS, *GPU) as fleet:
        yield "LLM replicas"
        with plan.business(fleet.servers, "rolling").started() as (server, _):
            asked, restarts = _rolled(server, seconds, lambda number: fleet.renew(number % REPLICAS))
            _note(plan, "rolled_llm", asked, f"{restarts} restarts")
        yield "our workers"
        plain = plan.var / "plain.toml"
        plain.write_text("[plain]\nmax_tokens = 256\n")
        business = plan.business(fleet.servers, "workers", WORKERS=str(WORKERS), ASSISTANTS=str(plain))
        with business.started() as (server, _):
            _ready(server)
            asked, restarts = _rolled(server, seconds, lambda number: _renew(server))
            _note(plan, "rolled_us", asked, f"{restarts} restarts of {WORKERS}")


def _rolled(server: Server, seconds: float, restart: Callable[[int], None]) -> tuple[list[Asked], int]:
    """What was asked while restarts went on, and how many there were."""
    load = offered(server.url, body_of(OURS, TOKENS), CAPACITY * SHARE, seconds, texts=True)
    restarts = 0
    with offering(load) as run:
        while time.time() < run.began + seconds - PAUSE:
            run.wait_until(time.time() - run.began + PAUSE)
            restart(restarts)
            restarts += 1
        return checked(run.ended())[0], restarts


def _note(plan: Plan, key: str, asked: Sequence[Asked], restarts: str) -> None:
    """How many answers failed, were cut, or say something else than they must; how they ended."""
    body = body_of(OURS, TOKENS)
    lost = [one for one in asked if one.ended != "whole" or one.text != expected(body, one.serial)]
    plan.found.note(OURS, "", **{key: float(len(lost))})
    ways = Counter(f"{one.ended} on a {'kept' if one.kept else 'new'} connection" for one in lost)
    ended = ", ".join(f"{count} {how}" for how, count in ways.items())
    plan.found.tell(key, f"{len(asked):,} questions at 70 % load ({CAPACITY * SHARE:.0f}/s), {restarts}")
    if lost:
        plan.found.tell(key, f"lost: {ended}")


def _workers(server: Server) -> set[int]:
    return {child.pid for child in server.process.children()}


def _ready(server: Server) -> None:
    waited_for(lambda: len(_workers(server)) == WORKERS, 60.0, 0.05)


def _renew(server: Server) -> None:
    """SIGHUP, and wait until there are other workers than before."""
    before = _workers(server)
    server.process.send_signal(signal.SIGHUP)
    waited_for(lambda: not before & _workers(server), 60.0, 0.05)
