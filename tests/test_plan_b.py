"""What is answered while no LLM can be had: sentences of the documents, and that it says so."""

import msgspec
import pytest

from business_api.errors import Unavailable
from business_api.exchange import Degradation, Outcome
from tests.fakes import FakeLlm, FixedShelf, passage
from tests.test_answering import PORTS, Stage, read

TEXT = passage(
    "Ports are numbers [7]. By default, as they say, the server listens\non port 8001.", "docs/text.md"
)
QUESTION = "Which port does the server listen on?"


def staged(when_llm_fails: str = "extract") -> Stage:
    llm = FakeLlm()
    llm.fail_with(503)
    return Stage(llm, FixedShelf((PORTS, TEXT)), when_llm_fails=when_llm_fails)


async def test_without_an_llm_the_answer_is_sentences_of_the_documents_and_says_so() -> None:
    stage = staged()
    said = await read(await stage.begin(QUESTION))
    assert said.split("\n\n") == [
        "The LLM server listens on 127.0.0.1:8001 by default. [1]",
        "By default, as they say, the server listens\non port 8001. [2]",
    ]
    exchange = stage.exchange
    assert exchange.outcome is Outcome.ANSWERED
    assert exchange.degraded == [Degradation.EXTRACTIVE_ANSWER]
    assert exchange.versions["model"] == "none"
    assert exchange.finish_reason == "stop"
    assert exchange.support_rate == 1.0


async def test_its_citations_are_verbatim_and_chosen_by_nobody_but_us() -> None:
    stage = staged()
    await read(await stage.begin(QUESTION))
    citations = stage.exchange.citations
    assert [(c.marker, c.by, c.supported) for c in citations] == [(1, "extract", True), (2, "extract", True)]
    for citation in citations:
        text = (PORTS, TEXT)[citation.marker - 1].chunk.text
        assert text[citation.start : citation.end] == citation.quote


async def test_an_assistant_that_refuses_then_gets_the_error() -> None:
    with pytest.raises(Unavailable):
        await staged("refuse").begin(QUESTION)


async def test_a_question_that_the_passages_have_nothing_to_do_with_gets_the_error() -> None:
    with pytest.raises(Unavailable):
        await staged().begin("Who painted the Mona Lisa?")


async def test_a_json_format_is_never_answered_with_sentences() -> None:
    with pytest.raises(Unavailable):
        await staged().begin(QUESTION, response_format={"type": "json_object"})


async def test_after_the_first_delta_nothing_is_extracted() -> None:
    llm = FakeLlm(pieces=["It listens", " on"])
    llm.die_after(1)
    stage = Stage(llm, when_llm_fails="extract")
    with pytest.raises(Unavailable):
        await read(await stage.begin(QUESTION))
    assert stage.exchange.answer.startswith("It")
    assert Degradation.EXTRACTIVE_ANSWER not in stage.exchange.degraded


async def test_a_recorded_extract_can_be_read_again() -> None:
    stage = staged()
    await read(await stage.begin(QUESTION))
    record = msgspec.json.decode(msgspec.json.encode(stage.exchange))
    assert [c["by"] for c in record["citations"]] == ["extract", "extract"]
