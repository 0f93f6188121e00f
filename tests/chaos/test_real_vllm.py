"""Two real vLLM servers, of which one is drained, frozen or killed while it answers: what callers get.

The second server has nearly all the weight, so that every prefix is asked of it while it is in.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from loadtests.running import waited_for
from tests.chaos.tier import Heard, heard_of
from tests.programs import Program, serving_program
from tests.vllm_servers import VllmServers

pytestmark = [pytest.mark.chaos, pytest.mark.vllm]

GOES = 1
"""Number of the server that is disturbed; the pool calls the two `stays` and `goes`."""
SETTINGS = {
    "BUSINESS_API_GUARD__REQUESTS_PER_MINUTE": "1000000",
    "BUSINESS_API_LLM__MIN_IN_FLIGHT": "64",
    "BUSINESS_API_LLM__CHOICE": "prefix",
}
PATIENCE = 240.0
"""Seconds that a step of the tests may take on a busy machine."""
TOKENS = 40
OUTSTANDING = 'tandem_replica_outstanding_tokens{replica="goes"}'
BEGUN = 5
"""Frames after which an answer is in its middle."""
SEA = "Tell a long story about a lighthouse keeper and the sea."
LETTERS = "Write the letters of the alphabet, each followed by a word that begins with it."
LONG = "Day {serial}. The keeper wrote in his log: the sea is calm. " * 30 + "Go on with his log."
DAYS = {"type": "array", "items": {"type": "integer"}, "minItems": 60}
LOG = {"type": "object", "properties": {"days": DAYS}, "required": ["days"]}
SCHEMA = {"name": "log", "schema": LOG}
WRITE = {"type": "function", "function": {"name": "write", "parameters": LOG}}
PLAIN = {
    "streamed": (SEA, {"stream": True}),
    "streamed too": (LETTERS, {"stream": True}),
    "whole": (SEA, {}),
}
MORE_THAN_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "logprobs": (SEA, {"stream": True, "logprobs": True}),
    "JSON": (SEA, {"stream": True, "response_format": {"type": "json_schema", "json_schema": SCHEMA}}),
    "tools": (SEA, {"stream": True, "tools": [WRITE], "tool_choice": "none"}),
}
JUST_ASKED: dict[str, dict[str, Any]] = {"just asked": {"stream": True}, "just asked, whole": {}}
serials = itertools.count(100)


def body(content: str, fields: dict[str, Any], tokens: int = TOKENS) -> dict[str, Any]:
    said = [{"role": "user", "content": content}]
    return {"model": "plain", "messages": said, "max_tokens": tokens, "temperature": 0} | fields


class Answer:
    """An answer on its way to a caller: when its frames arrive, and all of it in the end."""

    def __init__(self, callers: ThreadPoolExecutor, program: Program, asked: dict[str, Any]) -> None:
        self.arrived: list[float] = []
        self._heard: Future[Heard] = callers.submit(heard_of, program, asked, self.arrived)

    @property
    def begun(self) -> bool:
        return len(self.arrived) >= BEGUN

    def heard(self) -> Heard:
        return self._heard.result(300)


@dataclass(frozen=True)
class Stack:
    """The business API in front of both servers."""

    program: Program
    servers: VllmServers
    callers: ThreadPoolExecutor

    def asks(self, content: str, fields: dict[str, Any], tokens: int = TOKENS) -> Answer:
        return Answer(self.callers, self.program, body(content, fields, tokens))

    def out(self) -> dict[str, str]:
        """Who is out, and why."""
        found: dict[str, str] = self.program.get("/readyz")[1]["out"]
        return found

    def burdened(self, tokens: float) -> bool:
        """Whether the server that goes has so many tokens still to read and to say."""
        page = self.program.text("/metrics")
        (line,) = (one for one in page.splitlines() if one.startswith(OUTSTANDING))
        return float(line.rsplit(" ", 1)[1]) >= tokens

    def made_whole(self) -> None:
        """Start again who has ended, and wait until both are in."""
        if not self.servers.runs(GOES):
            self.servers.start(GOES)
        waited_for(lambda: self.out() == {}, PATIENCE)

    def just_asked(self, serial: int) -> dict[str, Answer]:
        """Questions that take their time to be read: no server has cached one of this serial."""
        content = LONG.format(serial=serial)
        return {name: self.asks(content, fields) for name, fields in JUST_ASKED.items()}

    def at_work(self, serial: int) -> dict[str, Answer]:
        """All answers: plain ones and others in their middle, and those that have just been asked for."""
        self.made_whole()
        self.asks(*MORE_THAN_TEXT["JSON"], tokens=1).heard()  # the first one of a schema is seconds late
        answers = {name: self.asks(*asked) for name, asked in (PLAIN | MORE_THAN_TEXT).items()}
        streams = [answer for name, answer in answers.items() if name != "whole"]
        waited_for(lambda: all(answer.begun for answer in streams), PATIENCE)
        answers |= self.just_asked(serial)
        prompts = len(LONG.format(serial=serial)) / 3 * len(JUST_ASKED)  # more than all but one of them carry
        waited_for(lambda: self.burdened(prompts), PATIENCE)
        return answers


@contextmanager
def stack_of(servers: VllmServers, var: Any) -> Iterator[Stack]:
    stays, goes = servers.urls
    replicas = [{"url": stays, "name": "stays"}, {"url": goes, "name": "goes", "weight": 1e6}]
    more = SETTINGS | {"BUSINESS_API_LLM__REPLICAS": json.dumps(replicas)}
    with serving_program(var, stays, **more) as program, ThreadPoolExecutor(32) as callers:
        yield Stack(program, servers, callers)


@pytest.fixture(scope="module")
def stack(two_vllms: VllmServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_of(two_vllms, tmp_path_factory.mktemp("stack")) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> dict[str, Heard]:
    """What is said to each question when nothing fails."""
    answers = {name: stack.asks(*asked) for name, asked in PLAIN.items()}
    return {name: answer.heard() for name, answer in answers.items()}


@contextmanager
def killed(servers: VllmServers) -> Iterator[None]:
    servers.kill(GOES)
    yield


@contextmanager
def without_its_model(servers: VllmServers) -> Iterator[None]:
    servers.kill_model(GOES)
    yield
    servers.kill(GOES)


FAULTS: dict[str, tuple[Callable[[VllmServers], AbstractContextManager[None]], str]] = {
    "frozen": (lambda servers: servers.stopped(GOES), "stalled"),
    "killed": (killed, "broke_off"),
    "model killed": (without_its_model, "broke_off"),
}


@dataclass(frozen=True)
class Disturbed:
    """All answers of a server that failed, the same of one that did not, and how the first attempts ended."""

    heard: dict[str, Heard]
    whole: dict[str, Heard]
    outcome: str
    out: dict[str, str]


@pytest.fixture(scope="module", params=FAULTS)
def disturbed(request: pytest.FixtureRequest, stack: Stack, undisturbed: dict[str, Heard]) -> Disturbed:
    fault, outcome = FAULTS[request.param]
    serial = next(serials)
    answers = stack.at_work(serial)
    with fault(stack.servers):
        heard = {name: answer.heard() for name, answer in answers.items()}
        again = {name: answer.heard() for name, answer in stack.just_asked(serial).items()}
        return Disturbed(heard, undisturbed | again, outcome, stack.out())


def attempts(heard: Heard) -> list[tuple[str, str]]:
    return [(one["replica"], one["outcome"]) for one in heard.exchange["attempts"]]


def test_a_vllm_that_drains_finishes_what_it_runs_and_new_questions_go_elsewhere(
    stack: Stack, undisturbed: dict[str, Heard]
) -> None:
    answers = stack.at_work(next(serials))
    stack.servers.drain(GOES)
    coming: list[Heard] = []
    while stack.servers.runs(GOES):
        coming.append(stack.asks(SEA, {"stream": len(coming) % 2 == 0}, tokens=2).heard())
        assert set(stack.out()) == {"goes"}
    for name, answer in answers.items():
        heard = answer.heard()
        assert heard.ended == "whole"
        if name not in JUST_ASKED:  # vLLM aborts what comes in the very moment of the signal
            assert attempts(heard) == [("goes", "answered")]
        assert name not in undisturbed or heard.text == undisturbed[name].text
    assert {(heard.ended, heard.text) for heard in coming} == {("whole", coming[0].text)}
    assert undisturbed["streamed"].text.startswith(coming[0].text)
    turned_away = [heard for heard in coming if len(heard.trail) > 1]
    assert turned_away == coming[: len(turned_away)]
    assert turned_away[-1].trail[-2:] == ["draining", "answered"]
    assert len(turned_away) <= 3
    stack.made_whole()
    assert attempts(stack.asks(SEA, {}, tokens=2).heard()) == [("goes", "answered")]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_answer_whose_vllm_fails_in_the_middle_is_the_same_to_the_character(
    name: str, disturbed: Disturbed
) -> None:
    whole, resumed = disturbed.whole[name], disturbed.heard[name]
    assert attempts(whole) == [("goes", "answered")]
    assert attempts(resumed) == [("goes", disturbed.outcome), ("stays", "answered")]
    assert (resumed.status, resumed.ended, resumed.text) == (200, "whole", whole.text)
    assert resumed.done is (name != "whole")
    assert resumed.resumed
    assert resumed.exchange["outcome"] == "answered"
    assert resumed.exchange["usage"] == whole.exchange["usage"]
    assert resumed.exchange["finish_reason"] == whole.exchange["finish_reason"]


@pytest.mark.parametrize("name", MORE_THAN_TEXT)
def test_an_answer_that_is_more_than_text_says_that_it_was_cut(name: str, disturbed: Disturbed) -> None:
    heard = disturbed.heard[name]
    assert (heard.status, heard.ended, heard.done) == (200, "flagged", False)
    assert attempts(heard) == [("goes", disturbed.outcome)]
    assert heard.exchange["outcome"] == "failed"


@pytest.mark.parametrize("name", JUST_ASKED)
def test_a_question_whose_vllm_fails_before_the_first_delta_is_answered_by_the_other(
    name: str, disturbed: Disturbed
) -> None:
    heard = disturbed.heard[name]
    assert (heard.status, heard.ended, heard.text) == (200, "whole", disturbed.whole[name].text)
    assert [replica for replica, _ in attempts(heard)] == ["goes", "stays"]
    assert not heard.resumed


def test_a_vllm_that_fails_is_left_out(disturbed: Disturbed) -> None:
    assert set(disturbed.out) == {"goes"}
