"""Callers who hang up at random moments: is every exchange recorded once, with the right outcome?

    python -m loadtests.hangups --host http://127.0.0.1:8000 --llm http://127.0.0.1:8001

A third of the requests is cut off at a random moment of the answer. Then every request must be found in
GET /exchanges exactly once, with the outcome that its caller saw, and the LLM server must be running nothing.
Exit code 0 if so, 1 if not.
"""

import asyncio
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.progress import track

from loadtests import traffic

RUNNING = re.compile(
    r"^(?:vllm:num_requests_running|llamacpp:requests_processing)(?:\{.*?\})? ([0-9.e+]+)", re.M
)
SERIAL = re.compile(r"\[(\w+)-(\d+)\]")
SHORTEST = 0.03
"""A caller who leaves earlier than this, in seconds, may be gone before the question was read."""
LATE = 0.25
"""Seconds by which an answer may have ended after its caller left, and still count as answered."""


@dataclass(frozen=True)
class Call:
    """One request as its caller saw it: `status` 0 if nothing came, `left_at` unix time of a hang-up."""

    number: int
    status: int
    left_at: float | None

    def allows(self, outcome: str, ended_at: float) -> bool:
        """Whether this outcome is what happened."""
        if self.left_at is not None:
            in_time = ended_at <= self.left_at + LATE
            return outcome == "abandoned" or (outcome in ("answered", "abstained") and in_time)
        if self.status == 200:
            return outcome in ("answered", "abstained")
        return outcome in ("refused", "failed")


@dataclass(frozen=True)
class Party:
    """The callers: whom they ask, and the run's name, which is part of every question."""

    session: aiohttp.ClientSession
    host: str
    assistant: str
    max_tokens: int
    run: str

    async def call(self, number: int, leaves_after: float | None) -> Call:
        """Ask, streamed or not, and read to the end or leave. A broken stream has status 599."""
        text = f"[{self.run}-{number}] {traffic.question()}"
        body = traffic.asked(self.assistant, text, stream=bool(number % 3), max_tokens=self.max_tokens)
        status = 0
        try:
            async with (
                asyncio.timeout(leaves_after),
                self.session.post(f"{self.host}/v1/chat/completions", json=body) as got,
            ):
                status = got.status
                said = await got.read()
        except TimeoutError:
            return Call(number, status, time.time())
        except aiohttp.ClientError:
            return Call(number, 599, None)
        return Call(number, 599 if b'data: {"error"' in said else status, None)

    async def recorded(self) -> list[dict[str, Any]]:
        """All exchanges of this run."""
        found: list[dict[str, Any]] = []
        before: str | None = None
        while True:
            wanted = {"limit": "100", "text": self.run} | ({"before": before} if before else {})
            headers = {"Accept": "application/json"}
            async with self.session.get(f"{self.host}/exchanges", params=wanted, headers=headers) as got:
                got.raise_for_status()
                page = await got.json()
            found += page["exchanges"]
            before = page["next"]
            if before is None:
                return found


async def run_all(party: Party, requests: int, at_once: int) -> list[Call]:
    """The usual length of an answer is taken from the first callers, none of whom leaves."""
    began = time.perf_counter()
    calls = [await party.call(number, None) for number in range(3)]
    usual = max((time.perf_counter() - began) / 3, SHORTEST * 2)
    leaving = set(random.sample(range(3, requests), requests // 3))
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> Call:
        async with room:
            return await party.call(number, random.uniform(SHORTEST, usual) if number in leaving else None)

    tasks = [asyncio.create_task(one(number)) for number in range(3, requests)]
    for done in track(asyncio.as_completed(tasks), total=len(tasks), description="asking"):
        calls += [await done]
    return calls


async def settled(party: Party, requests: int, llm: str, seconds: float = 20.0) -> tuple[list[Any], float]:
    """The exchanges and the LLM server's running count, once there are enough and none, or time is up."""
    end = time.perf_counter() + seconds
    while True:
        exchanges, running = await party.recorded(), await still_running(party.session, llm)
        if (len(exchanges) >= requests and running == 0) or time.perf_counter() > end:
            return exchanges, running
        await asyncio.sleep(0.2)


async def still_running(session: aiohttp.ClientSession, llm: str) -> float:
    """What /metrics of vLLM or llama.cpp calls running. Raises ValueError if it tells neither."""
    async with session.get(f"{llm}/metrics") as got:
        found = RUNNING.findall(await got.text())
    if not found:
        raise ValueError(f"{llm}/metrics tells no running count")
    return sum(map(float, found))


def wrongs(calls: Sequence[Call], exchanges: Sequence[dict[str, Any]], running: float) -> list[str]:
    """Everything that is not as it must be."""
    found = [(SERIAL.search(one["question"]), one) for one in exchanges]
    recorded = {int(match[2]): one for match, one in found if match}
    times = Counter(int(match[2]) for match, _ in found if match)
    wrong = [f"request {number} is recorded {count} times" for number, count in times.items() if count > 1]
    if running:
        wrong.append(f"the LLM server still runs {running:.0f}")
    for call in calls:
        one = recorded.get(call.number)
        if one is None:
            wrong.append(f"request {call.number} is not recorded ({call})")
        elif not call.allows(one["outcome"], one["at"] + one["timings_ms"].get("total", 0) / 1000):
            wrong.append(f"request {call.number} is recorded as {one['outcome']}, but {call}")
    return wrong


async def check(
    *, host: str, llm: str, requests: int, at_once: int, assistant: str, max_tokens: int, key: str
) -> list[str]:
    """The whole run; what went wrong."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        party = Party(session, host.rstrip("/"), assistant, max_tokens, f"run{secrets.token_hex(4)}")
        calls = await run_all(party, requests, at_once)
        exchanges, running = await settled(party, requests, llm.rstrip("/"))
    left = sum(call.left_at is not None for call in calls)
    outcomes = dict(Counter(one["outcome"] for one in exchanges))
    Console().print(f"{len(calls)} requests, {left} hung up; {len(exchanges)} exchanges: {outcomes}")
    return wrongs(calls, exchanges, running)


def main(
    *,
    host: Annotated[str, typer.Option(help="Business API.")] = "http://127.0.0.1:8000",
    llm: Annotated[str, typer.Option(help="LLM server.")] = "http://127.0.0.1:8001",
    requests: Annotated[int, typer.Option(min=6, help="How many.")] = 200,
    at_once: Annotated[int, typer.Option(help="Callers at once.")] = 16,
    assistant: Annotated[str, typer.Option(help="Assistant to ask.")] = "tandem",
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 32,
    key: Annotated[str, typer.Option(envvar="TANDEM_API_KEY", help="API key.")] = "",
) -> None:
    """Hang up on a third of the requests; check what was recorded."""
    wrong = asyncio.run(
        check(
            host=host,
            llm=llm,
            requests=requests,
            at_once=at_once,
            assistant=assistant,
            max_tokens=max_tokens,
            key=key,
        )
    )
    for one in wrong:
        Console().print(one, style="red", markup=False)
    Console().print("not as it must be" if wrong else "all recorded once, nothing left running")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
