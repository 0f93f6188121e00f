"""The measuring instruments: the lean LLM server, the generator, the readers, the checks."""

from typing import Any

import msgspec
import openai
import pytest

from loadtests import traffic
from loadtests.bench_cost import slope
from loadtests.fast_llm import Pace, said
from loadtests.figures import Results, Row, machine, versions
from loadtests.generator import Load, put_on, spread
from loadtests.hangups import Call, wrongs
from loadtests.rows import Figure, Rounds, rows_of
from loadtests.running import printing_its_port, set_pace
from loadtests.streaming import Broken, listen
from tests.fakes import FakeLlm, serving

MESSAGES: Any = [{"role": "user", "content": "{serial} which port"}]


def load(url: str, *, stream: bool, deltas: int, callers: int = 2) -> Load:
    body = msgspec.json.encode({"model": "fake", "messages": MESSAGES, "stream": stream})
    return Load(
        url=f"{url}/v1/chat/completions",
        body=msgspec.Raw(body),
        callers=callers,
        seconds=0.3,
        deltas=deltas,
    )


def test_the_real_client_understands_the_lean_server() -> None:
    with printing_its_port("loadtests.fast_llm") as llm:
        set_pace(llm, Pace(deltas=5, gap_ms=1))
        with openai.OpenAI(base_url=f"{llm.url}/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model="fast", messages=MESSAGES)
            chunks = list(
                client.chat.completions.create(
                    model="fast", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                )
            )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == streamed == said(5)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage


async def test_the_generator_counts_every_frame_and_never_asks_the_same_twice() -> None:
    fake = FakeLlm(pieces=["a", "b", "c"])
    with serving(fake) as url:
        seen = await put_on(load(url, stream=True, deltas=3))
    asked = [heard.body["messages"][0]["content"] for heard in fake.requests]
    assert seen.all_answers == len(asked) == len(set(asked))
    assert seen.frames == 3 * seen.all_answers
    assert (seen.failed, seen.short) == (0, 0)


async def test_the_generator_tells_answers_cut_short_and_answers_broken_off() -> None:
    fake = FakeLlm(pieces=["a", "b"])
    fake.die_after(1, times=1)
    with serving(fake) as url:
        seen = await put_on(load(url, stream=True, deltas=3, callers=1))
    assert seen.failed == 1
    assert seen.short == seen.all_answers > 0


async def test_the_generator_counts_a_refusal_as_failed() -> None:
    fake = FakeLlm()
    fake.fail_with(503)
    with serving(fake) as url:
        seen = await put_on(load(url, stream=False, deltas=0, callers=1))
    assert seen.answers == 0
    assert seen.failed == len(fake.requests)


def test_percentiles_are_figures_that_were_seen() -> None:
    assert spread([float(number) for number in range(101)]) == spread(list(range(100, -1, -1)))
    assert spread([float(number) for number in range(101)]).p99 == 99.0
    assert spread([]).p50 == 0.0


def test_a_reader_takes_times_and_tokens() -> None:
    with serving(FakeLlm("one two three four")) as url:
        times = listen(url, "/v1/chat/completions", traffic.asked("fake", "q"))
    assert times.tokens == len(times.arrivals) == 4
    assert times.ttft is not None
    assert times.e2e >= times.arrivals[-1]


def test_a_reader_may_leave_and_the_server_stops() -> None:
    fake = FakeLlm("one two three four", delay=0.05)
    with serving(fake) as url:
        times = listen(url, "/v1/chat/completions", traffic.asked("fake", "q"), hang_up_after=2)
    assert times.hung_up
    assert len(times.arrivals) == 2
    assert (fake.finished, fake.running) == (0, 0)


@pytest.mark.parametrize(
    "fault", ["die_after", "error_frame_after", "done_without_finish", "end_with", "fail_with"]
)
def test_a_reader_knows_a_broken_answer(fault: str) -> None:
    fake = FakeLlm()
    arguments: dict[str, list[Any]] = {"done_without_finish": [], "end_with": ["abort"], "fail_with": [503]}
    getattr(fake, fault)(*arguments.get(fault, [1]))
    with serving(fake) as url, pytest.raises(Broken):
        listen(url, "/v1/chat/completions", traffic.asked("fake", "q"))


def exchange(number: int, outcome: str, at: float = 0.0, total_ms: float = 1000.0) -> dict[str, Any]:
    question = f"[run-{number}] which port"
    return {"question": question, "outcome": outcome, "at": at, "timings_ms": {"total": total_ms}}


def test_a_run_in_which_all_is_recorded_right_has_no_wrongs() -> None:
    calls = [Call(0, 200, None), Call(1, 0, 0.5), Call(2, 200, 1.5), Call(3, 503, None), Call(4, 599, None)]
    outcomes = ["answered", "abandoned", "answered", "refused", "failed"]
    recorded = [exchange(number, outcome) for number, outcome in enumerate(outcomes)]
    assert wrongs(calls, recorded, 0) == []


@pytest.mark.parametrize(
    ("recorded", "running", "said"),
    [
        ([], 0, "request 0 is not recorded"),
        ([exchange(0, "answered")] * 2, 0, "recorded 2 times"),
        ([exchange(0, "abandoned")], 0, "recorded as abandoned"),
        ([exchange(0, "answered")], 1, "still runs 1"),
    ],
)
def test_what_is_recorded_wrong_is_told(recorded: list[dict[str, Any]], running: float, said: str) -> None:
    found = wrongs([Call(0, 200, None)], recorded, running)
    assert len(found) == 1
    assert said in found[0]


def test_an_answer_that_ended_long_after_its_caller_left_was_not_abandoned_in_time() -> None:
    assert wrongs([Call(0, 200, 0.2)], [exchange(0, "answered")], 0)


ADDED = Figure("late", "added lateness", "ms", floor=3.0, aim=1.0, added=True)


def rounds() -> Rounds:
    found = Rounds()
    for way, figures in (
        ("direct", (1.0, 3.0, 2.0)),
        ("plain", (2.0, 5.0, 4.5)),
        ("peer", (9.0, 10.0, 11.0)),
    ):
        for figure in figures:
            found.note(way, late=figure)
    return found


def test_rows_are_ours_less_direct_round_by_round_and_survive_json() -> None:
    rows = rows_of(rounds(), (ADDED, Figure("unseen", "never measured", "ms")))
    assert [(row.value, row.low, row.high, row.baseline) for row in rows] == [(2.0, 1.0, 2.5, 2.0)]
    assert rows[0].peers == {"peer": 8.0}
    results = Results(machine=machine(), versions=versions(), rows=rows)
    assert msgspec.json.decode(msgspec.json.encode(results), type=Results) == results


def test_a_void_round_does_not_count_unless_all_are() -> None:
    found = rounds()
    found.note("direct", late=1.0)
    found.note("plain", "it was late", late=100.0)
    (row,) = rows_of(found, (ADDED,))
    assert (row.high, row.note) == (2.5, "1 of 4 rounds void: it was late")
    void = Rounds()
    void.note("plain", "it was late", late=100.0)
    (row,) = rows_of(void, (ADDED._replace(added=False),))
    assert (row.value, row.note) == (100.0, "VOID: it was late")


def test_a_slope_is_not_moved_by_single_peaks() -> None:
    samples = [(float(second), 100.0 + 0.5 * second) for second in range(40)]
    samples[7] = (7.0, 900.0)
    assert slope(samples) == 0.5


def test_a_row_says_what_it_reaches() -> None:
    reached = [Row.of("x", "ms", "lower", [v], floor=3.0, aim=1.0).verdict for v in (0.9, 2.0, 4.0)]
    assert [("aim" in said, "floor" in said, "below" in said) for said in reached] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
