"""The story: what is recorded, in which order things happen, and what each ending is called."""

from typing import Any

import pytest

from business_api.admission import Admission
from business_api.answering import Answer, Parts, answer
from business_api.assistants import Assistant, Assistants
from business_api.errors import (
    InvalidRequest,
    RetrievalUnavailable,
    ServiceError,
    UnknownAssistant,
    UpstreamUnavailable,
)
from business_api.exchange import Degradation, Exchange, Message, Outcome, Question
from business_api.extracting import extract
from business_api.prompting import Prompting, Template
from business_api.rewriting import rewrite
from business_api.settings import ROOT, LlmSettings
from business_api.transport import InProcess
from business_api.upstream import Upstream
from tests.fakes import FakeLlm, FixedJudge, FixedShelf, Notebook, passage
from tests.reading import text_of

TEMPLATE = "answer_with_markers/v1"
PORTS = passage("The LLM server listens on 127.0.0.1:8001 by default.", "docs/ports.md")


class Stage:
    """The story with a scripted LLM, a fixed shelf and a notebook."""

    def __init__(
        self,
        llm: FakeLlm | None = None,
        shelf: FixedShelf | None = None,
        judge: FixedJudge | None = None,
        **assistant: Any,
    ) -> None:
        self.llm = llm or FakeLlm("It listens on port 8001 [1].")
        self.shelf = shelf or FixedShelf((PORTS,))
        self.judge = judge or FixedJudge()
        self.notebook = Notebook()
        self.admission = admission = Admission(LlmSettings(), {})
        upstream = Upstream(InProcess(self.llm), LlmSettings(), admission.observe)
        fields = {"name": "tandem", "collection": "kb", "template": TEMPLATE, **assistant}
        self.parts = Parts(
            assistants=Assistants([Assistant(**fields), Assistant(name="plain")]),
            check=self.check,
            admit=admission.admit,
            room=admission.room,
            rewrite=rewrite,
            retrieve=self.shelf.retrieve,
            judge=self.judge.judge,
            fill=Prompting({TEMPLATE: Template.load(ROOT / "prompts", TEMPLATE)}, 2048, 3.0).fill,
            generate=upstream.generate,
            extract=extract,
            record=self.notebook.record,
        )

    def check(self, question: Question) -> None:
        if question.text == "forbidden":
            raise InvalidRequest("no")

    async def begin(
        self, text: str = "Which port?", assistant: str = "tandem", *, explain: bool = False, **sampling: Any
    ) -> Answer:
        question = Question(
            id="x1",
            tenant="t",
            assistant=assistant,
            messages=(Message(role="user", content=text),),
            sampling=sampling,
            explain=explain,
        )
        return await answer(question, self.parts)

    @property
    def exchange(self) -> Exchange:
        """The one exchange that was recorded."""
        (recorded,) = self.notebook.exchanges
        return recorded


async def read(started: Answer) -> str:
    async with started:
        return await text_of(started)


async def test_an_answer_is_cited_and_recorded_with_all_it_rests_on() -> None:
    stage = Stage()
    said = await read(await stage.begin())
    assert said == "It listens on port 8001 [1]."
    exchange = stage.exchange
    assert exchange.outcome is Outcome.ANSWERED
    assert exchange.answer == said
    assert exchange.passages == (PORTS,)
    assert exchange.citations[0].quote in PORTS.chunk.text
    assert exchange.usage is not None
    assert exchange.finish_reason == "stop"
    assert set(exchange.versions) == {"assistant", "index", "prompt", "model", "fingerprint"}
    assert {"embed", "search", "prompt", "queue", "ttft", "total"} <= set(exchange.timings_ms)
    assert exchange.prompt is not None
    assert PORTS.chunk.text in (exchange.prompt.messages[-1].content or "")


async def test_the_exchange_is_recorded_before_the_reader_sees_the_end() -> None:
    stage = Stage()
    async with await stage.begin() as started:
        await started.whole()
        assert len(stage.notebook.exchanges) == 1
    assert len(stage.notebook.exchanges) == 1


async def test_a_refused_question_is_recorded_and_reaches_neither_shelf_nor_model() -> None:
    stage = Stage()
    with pytest.raises(InvalidRequest) as caught:
        await stage.begin("forbidden")
    assert stage.exchange.outcome is Outcome.REFUSED
    assert caught.value.request_id == "x1"
    assert stage.shelf.asked == []
    assert stage.llm.requests == []


async def test_an_unknown_assistant_is_refused_and_recorded() -> None:
    stage = Stage()
    with pytest.raises(UnknownAssistant):
        await stage.begin(assistant="nobody")
    assert stage.exchange.outcome is Outcome.REFUSED


async def test_when_retrieval_fails_there_is_no_answer_without_documents() -> None:
    stage = Stage(shelf=FixedShelf(error=RetrievalUnavailable("down")))
    with pytest.raises(RetrievalUnavailable):
        await stage.begin()
    assert stage.exchange.outcome is Outcome.FAILED
    assert stage.llm.requests == []


async def test_an_assistant_may_answer_without_documents_but_says_so() -> None:
    stage = Stage(shelf=FixedShelf(error=RetrievalUnavailable("down")), when_retrieval_fails="answer")
    await read(await stage.begin())
    assert stage.exchange.degraded == [Degradation.RETRIEVAL_UNAVAILABLE]
    assert stage.exchange.outcome is Outcome.ANSWERED


async def test_what_retrieval_had_to_do_without_is_in_the_exchange() -> None:
    stage = Stage(shelf=FixedShelf((PORTS,), degraded=(Degradation.DENSE_UNAVAILABLE,)))
    await read(await stage.begin())
    assert stage.exchange.degraded == [Degradation.DENSE_UNAVAILABLE]


async def test_nothing_found_is_said_plainly_without_asking_the_model() -> None:
    stage = Stage(shelf=FixedShelf())
    said = await read(await stage.begin())
    assert "do not answer" in said
    assert stage.exchange.outcome is Outcome.ABSTAINED
    assert stage.llm.requests == []


async def test_a_plain_assistant_relays_without_searching_or_marking() -> None:
    stage = Stage(FakeLlm("As [7] says, port 8001."))
    assert await read(await stage.begin(assistant="plain")) == "As [7] says, port 8001."
    assert stage.shelf.asked == []
    assert stage.exchange.citations == []


async def test_json_answers_are_not_marked() -> None:
    stage = Stage()
    said = await read(await stage.begin(response_format={"type": "json_object"}))
    assert said == '{"answer":"It listens on port 8001 [1]."}'
    assert stage.exchange.citations == []


async def test_an_llm_that_is_down_fails_the_exchange_before_anything_was_sent() -> None:
    llm = FakeLlm()
    llm.fail_with(500, "boom")
    stage = Stage(llm)
    with pytest.raises(UpstreamUnavailable):
        await stage.begin()
    assert stage.exchange.outcome is Outcome.FAILED
    assert (stage.exchange.error or {})["code"] == "upstream_unavailable"


async def test_an_answer_that_breaks_off_is_failed_and_keeps_what_was_said() -> None:
    llm = FakeLlm(pieces=["The ", "port "])
    llm.die_after(1)
    stage = Stage(llm)
    with pytest.raises(UpstreamUnavailable):
        await read(await stage.begin())
    assert stage.exchange.outcome is Outcome.FAILED
    assert stage.exchange.answer == "The"


async def test_a_bug_is_recorded_as_failed_without_its_text() -> None:
    stage = Stage(shelf=FixedShelf(error=ZeroDivisionError("secret")))
    with pytest.raises(ServiceError) as caught:
        await stage.begin()
    assert caught.value.message == "internal error"
    assert caught.value.request_id == "x1"
    assert stage.exchange.outcome is Outcome.FAILED
    assert "secret" not in str(stage.exchange.error)


async def test_a_follow_up_is_searched_with_the_question_before_it() -> None:
    stage = Stage()
    messages = tuple(
        Message(role=role, content=text)
        for role, text in [("user", "Which port?"), ("assistant", "8001"), ("user", "Can I change it?")]
    )
    await read(await answer(Question(id="x", tenant="t", assistant="tandem", messages=messages), stage.parts))
    assert stage.shelf.asked[0][0] == "Which port?\nCan I change it?"


async def test_the_assistants_temperature_holds_unless_the_caller_sets_one() -> None:
    stage = Stage(temperature=0.0)
    await read(await stage.begin())
    await read(await stage.begin(temperature=0.9))
    assert [heard.body["temperature"] for heard in stage.llm.requests] == [0.0, 0.9]
