"""What the hosted reranker does when its server talks nonsense, is away, is late, or wants texts cut."""

import asyncio
import json
from typing import Any

import pytest
from fastapi import Response

from business_api.errors import RetrievalUnavailable
from business_api.reranking import Reranker, open_reranker
from business_api.settings import RerankSettings, Settings
from tests.fake_reranker import FakeReranker
from tests.fakes import serving
from tests.rerank_server import rerank_server


async def hosted(url: str, **knobs: Any) -> Reranker:
    chosen = RerankSettings(kind="hosted", url=f"{url}/v1", model="words", **knobs)
    reranker = await open_reranker(Settings(rerank=chosen))
    assert reranker is not None
    return reranker


def results(*pairs: tuple[Any, Any]) -> bytes:
    found = [{"index": index, "relevance_score": score} for index, score in pairs]
    return json.dumps({"results": found, "secret": "secret"}).encode()


WRONG = {
    "failing": Response(b"secret", 500),
    "refusing": Response(b"secret", 400),
    "not found": Response(b"secret", 404),
    "not JSON": Response(b"secret"),
    "not UTF-8": Response(b"\xff\xfe"),
    "empty": Response(b""),
    "a list": Response(b'["secret"]'),
    "no results": Response(b'{"data": []}'),
    "too few": Response(results((0, 0.5))),
    "too many": Response(results((0, 0.5), (1, 0.4), (2, 0.3))),
    "one twice": Response(results((0, 0.5), (0, 0.4))),
    "one twice and all": Response(results((0, 0.5), (1, 0.4), (1, 0.3))),
    "another index": Response(results((0, 0.5), (2, 0.4))),
    "an index below zero": Response(results((0, 0.5), (-1, 0.4))),
    "an index that is no number": Response(results((0, 0.5), ("1", 0.4))),
    "a score that is no number": Response(results((0, 0.5), (1, "secret"))),
    "a score that is null": Response(results((0, 0.5), (1, None))),
    "a score that is NaN": Response(results((0, 0.5), (1, float("nan")))),
    "a score without end": Response(results((0, 0.5), (1, 7)).replace(b"7", b"7e999")),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_nonsense_is_unavailable_and_its_words_stay_inside(kind: str) -> None:
    with serving(rerank_server(FakeReranker(), instead=WRONG[kind])) as url:
        reranker = await hosted(url)
        with pytest.raises(RetrievalUnavailable, match="the reranking server") as caught:
            await reranker.score("one two", ["one", "two"])
        await reranker.aclose()
    assert "secret" not in caught.value.message


async def test_a_server_that_is_away_is_unavailable() -> None:
    with serving(rerank_server(FakeReranker())) as url:
        reranker = await hosted(url)
        assert await reranker.score("one two", ["three", "one"]) == [0, 0.5]
    with pytest.raises(RetrievalUnavailable, match="cannot be reached"):
        await reranker.score("one two", ["three", "one"])
    await reranker.aclose()


async def test_a_caller_past_its_deadline_hangs_up() -> None:
    hung_up = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        reranker = await hosted(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reranker.score("one", ["two"])
        async with asyncio.timeout(10):
            await hung_up.wait()
        await reranker.aclose()


async def test_a_server_that_wants_texts_cut_is_told_to_and_then_always() -> None:
    words = FakeReranker()
    with serving(rerank_server(words, max_words=2)) as url:
        reranker = await hosted(url)
        assert await reranker.score("b c", ["a b", "b"]) == [0.5, 0.5]
        assert await reranker.score("b c", ["a b c", "b c a"]) == [0.5, 1]
        assert await reranker.score("b c", ["c b a", "b"]) == [1, 0.5]
        await reranker.aclose()
    assert [texts for _, texts in words.asked] == [("a b", "b"), ("a b", "b c"), ("c b", "b")]


async def test_the_key_is_shown_to_the_server() -> None:
    heard: list[str | None] = []
    app = rerank_server(FakeReranker())

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            heard.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await app(scope, receive, send)

    with serving(listening) as url:
        reranker = await hosted(url, api_key="sk-rerank")
        await reranker.score("one", ["one"])
        await reranker.aclose()
    assert heard == ["Bearer sk-rerank"]


@pytest.mark.parametrize("named", [{}, {"url": "http://127.0.0.1:1/v1"}, {"model": "words"}])
async def test_a_url_and_a_model_are_needed(named: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="BUSINESS_API_RERANK__URL and BUSINESS_API_RERANK__MODEL"):
        await open_reranker(Settings(rerank=RerankSettings(kind="hosted", **named)))
