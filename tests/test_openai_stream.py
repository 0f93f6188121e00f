"""An answer as OpenAI's chunks: each delta is one chunk, those that arrived together go out together."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from business_api.answering import Answer
from business_api.arrivals import Take
from business_api.errors import CallerGone
from business_api.exchange import Delta, Exchange, Message, Outcome, Question
from business_api.openai_stream import Chunks, stream
from business_api.usage import Usage


def exchange() -> Exchange:
    question = Question(
        id="id-1", tenant="t", assistant='a "b"', messages=(Message(role="user", content="?"),)
    )
    found = Exchange(question=question, finish_reason="stop", outcome=Outcome.ANSWERED)
    found.usage = Usage(1, 2, 3)
    return found


class Batches:
    """An answer whose deltas arrive in these batches."""

    def __init__(self, *batches: list[Delta]) -> None:
        self.exchange = exchange()
        self._batches = batches

    async def relay(self, take: Take[Sequence[Delta]]) -> None:
        for batch in self._batches:
            take(batch)


async def bodies(*batches: list[Delta], include_usage: bool = False) -> list[list[Any]]:
    """The parsed events of each body; `[DONE]` stays a string."""
    started = cast(Answer, Batches(*batches))
    written: list[bytes] = []
    last = await stream(started, include_usage, written.append)
    return [
        [said if said == "[DONE]" else msgspec.json.decode(said) for said in events(body)]
        for body in (*written, last)
    ]


def events(body: bytes) -> list[str]:
    return [event.removeprefix("data: ") for event in body.decode().split("\n\n") if event]


def said(chunk: Any) -> Any:
    return chunk["choices"][0]["delta"].get("content")


async def test_deltas_that_arrived_together_are_one_body_of_a_chunk_each() -> None:
    first, second, last = await bodies([Delta("a"), Delta("b")], [Delta("c")])
    assert [said(chunk) for chunk in first] == ["", "a", "b"]
    assert [said(chunk) for chunk in second] == ["c"]
    assert last[-1] == "[DONE]"
    assert last[0]["choices"][0]["finish_reason"] == "stop"


async def test_a_delta_that_is_held_back_holds_back_none_before_it() -> None:
    first, _ = await bodies([Delta("a"), Delta("")])
    assert [said(chunk) for chunk in first] == ["", "a"]


@pytest.mark.parametrize("include_usage", [False, True])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_chunk_of_text_is_what_encoding_all_of_it_would_give(text: str, include_usage: bool) -> None:
    chunks = Chunks(exchange(), include_usage=include_usage)
    assert chunks.of(Delta(text)) == chunks.chunk({"content": text})


async def test_tool_calls_and_refusals_are_chunks_of_their_own() -> None:
    call = {"index": 0, "id": "x", "function": {"name": "f", "arguments": "{}"}}
    (first, _) = await bodies([Delta("a"), Delta(tool_calls=[call]), Delta(refusal="no")])
    assert [chunk["choices"][0]["delta"] for chunk in first[1:]] == [
        {"content": "a"},
        {"tool_calls": [call]},
        {"refusal": "no"},
    ]


async def test_a_reader_who_is_taken_for_gone_is_told_nothing_more() -> None:
    class Unread(Batches):
        async def relay(self, take: Take[Sequence[Delta]]) -> None:
            await super().relay(take)
            raise CallerGone("the caller does not read")

    written: list[bytes] = []
    with pytest.raises(CallerGone):
        await stream(cast(Answer, Unread([Delta("a")])), False, written.append)
    assert len(written) == 1
