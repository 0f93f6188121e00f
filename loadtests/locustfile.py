"""People who ask, read and sometimes leave: load for the business API and, with --llm, the LLM tier itself.

    locust -f loadtests/locustfile.py --headless --only-summary -u 20 -r 5 -t 60s \
        --host http://127.0.0.1:8000 [--llm http://127.0.0.1:8001] [--key KEY]

Every answer is read as a stream and fires the locust events `answer` (e2e), `ttft`, `itl` (mean of the
answer) in ms, and `tokens/s`. At the end: a table, and loadtests/results/loadtest.json.
"""

import os
import random
from argparse import ArgumentParser
from typing import Any

import msgspec
from locust import User, between, events, task
from rich.table import Table

from loadtests import traffic
from loadtests.figures import Row, write
from loadtests.running import fetched
from loadtests.streaming import Broken, Times, listen

METRICS = ("ttft", "itl", "answer", "tokens/s")
SHARES = (0.5, 0.9, 0.99)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: ArgumentParser) -> None:
    """Our own options, beside locust's."""
    parser.add_argument("--llm", default="", help="LLM tier to ask directly too, such as http://host:8001")
    parser.add_argument("--assistant", default="tandem", help="assistant to ask")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--key", default=os.environ.get("TANDEM_API_KEY", ""), help="API key")


class Asker(User):
    """Asks and reads; what it saw becomes locust events."""

    abstract = True
    wait_time = between(0.5, 2.0)

    def listen(
        self, path: str, body: object, *, url: str = "", hang_up_after: int | None = None
    ) -> Times | None:
        """The times of one answer, None if it broke."""
        name = type(self).__name__
        key = self.environment.parsed_options.key or None
        try:
            times = listen(url or str(self.host), path, body, key=key, hang_up_after=hang_up_after)
        except Broken as exc:
            self._fire("answer", name, 0.0, exception=exc)
            return None
        seen = {"ttft": times.ttft, "itl": times.itl, "tokens/s": times.tokens_per_second}
        if not times.hung_up:
            seen["answer"] = times.e2e
        for metric, figure in seen.items():
            if figure is not None:
                self._fire(metric, name, figure, times.size)
        return times

    def _fire(self, metric: str, name: str, figure: float, size: int = 0, exception: Any = None) -> None:
        self.environment.events.request.fire(
            request_type=metric,
            name=name,
            response_time=figure,
            response_length=size,
            exception=exception,
            context={},
        )


class ApiCaller(Asker):
    """A program that uses the OpenAI API."""

    weight = 5

    @task
    def ask(self) -> None:
        """One question, one streamed answer."""
        options = self.environment.parsed_options
        body = traffic.asked(options.assistant, traffic.question(), max_tokens=options.max_tokens)
        self.listen("/v1/chat/completions", body)


class Reader(Asker):
    """A person on the chat page: a conversation with follow-ups."""

    weight = 3

    @task
    def converse(self) -> None:
        """Some turns of one conversation."""
        conversation = None
        for turn in range(random.randint(1, traffic.LONGEST_CONVERSATION)):
            body = traffic.said(
                traffic.question(turn), conversation, self.environment.parsed_options.assistant
            )
            times = self.listen("/chat", body)
            if times is None:
                return
            conversation = times.conversation
            self.wait()  # type: ignore[no-untyped-call]


class Leaver(Asker):
    """A person who closes the page in the middle of the answer."""

    weight = 1

    @task
    def leave(self) -> None:
        """Hang up after some deltas."""
        body = traffic.asked(self.environment.parsed_options.assistant, traffic.question())
        self.listen("/v1/chat/completions", body, hang_up_after=random.randint(1, 12))


class DirectCaller(Asker):
    """Asks the LLM tier without us, for comparison."""

    weight = 5
    served = ""

    @task
    def ask(self) -> None:
        """One question, one streamed answer of the LLM server."""
        options = self.environment.parsed_options
        body = traffic.asked(self.served, traffic.question(), max_tokens=options.max_tokens)
        self.listen("/v1/chat/completions", body, url=options.llm)


@events.init.add_listener  # type: ignore[untyped-decorator]
def choose_users(environment: Any, **_: Any) -> None:
    """Nobody asks the LLM tier directly unless --llm says where it is."""
    llm = environment.parsed_options.llm
    if llm:
        listed = msgspec.json.decode(fetched("GET", llm, "/v1/models")[1])
        DirectCaller.served = listed["data"][0]["id"]
    else:
        environment.user_classes = [one for one in environment.user_classes if one is not DirectCaller]


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def summarise(environment: Any, **_: Any) -> None:
    """Percentiles by kind of user, as a table and a result file."""
    entries = environment.stats.entries
    seen = [key for key in _in_order(entries) if entries[key].num_requests > entries[key].num_failures]
    rows = [_row(entries[key], key[1], share) for key in seen for share in SHARES]
    if rows:
        write("loadtest", rows, ("locust",), drawn=_drawn(seen, rows, entries))
    failures = sum(entry.num_failures for entry in entries.values())
    environment.process_exit_code = 1 if failures or not rows else 0


def _in_order(entries: Any) -> list[tuple[str, str]]:
    """Kinds of user by name, each with its metrics as METRICS has them."""
    return sorted(entries, key=lambda entry: (entry[0], METRICS.index(entry[1])))


def _drawn(seen: list[tuple[str, str]], rows: list[Row], entries: Any) -> Table:
    table = Table("who", "what", title="loadtest", title_justify="left")
    for heading in ("p50", "p90", "p99", "unit", "answers", "broken"):
        table.add_column(heading, justify="right")
    for place, (name, metric) in enumerate(seen):
        figures = rows[place * len(SHARES) : (place + 1) * len(SHARES)]
        entry = entries[name, metric]
        counts = (entry.num_requests - entry.num_failures, entry.num_failures)
        table.add_row(
            name, metric, *(f"{row.value:,.0f}" for row in figures), figures[0].unit, *map(str, counts)
        )
    return table


def _row(entry: Any, metric: str, share: float) -> Row:
    """For tokens/s the slow end is the low one."""
    slow = 1 - share if metric == "tokens/s" else share
    figure = float(entry.get_response_time_percentile(slow))
    return Row(
        name=f"{entry.name}: {metric} p{share * 100:.0f}",
        unit="1/s" if metric == "tokens/s" else "ms",
        better="higher" if metric == "tokens/s" else "lower",
        value=figure,
        low=figure,
        high=figure,
    )
