"""The promises of the Reranker port: fake, onnxruntime, sentence-transformers, hosted over a real socket."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from business_api.reranking import Reranker, open_reranker
from business_api.settings import RerankSettings, Settings
from tests.fake_reranker import FakeReranker
from tests.fakes import serving
from tests.rerank_server import rerank_server
from tests.tiny_cross_encoder import cross_encoder

__all__ = ["cross_encoder"]  # a fixture

QUESTION = "which port does the server listen on"
ANSWERS = "the server does listen on which port"
NEAR = "the server is yellow"
FAR = "bananas are what"
ODD = ["Grüße 🦊 汉字", "", " ", "port " * 700, "\x00"]


@asynccontextmanager
async def fake(folder: Path) -> AsyncIterator[Reranker]:
    yield FakeReranker()


@asynccontextmanager
async def onnx(folder: Path) -> AsyncIterator[Reranker]:
    async with opened(RerankSettings(kind="onnx", folder=folder, threads=2)) as reranker:
        yield reranker


@asynccontextmanager
async def sentence_transformers(folder: Path) -> AsyncIterator[Reranker]:
    async with opened(RerankSettings(kind="sentence-transformers", folder=folder)) as reranker:
        yield reranker


@asynccontextmanager
async def hosted(folder: Path) -> AsyncIterator[Reranker]:
    with serving(rerank_server(FakeReranker())) as url:
        async with opened(RerankSettings(kind="hosted", url=f"{url}/v1", model="words")) as reranker:
            yield reranker


@asynccontextmanager
async def opened(rerank: RerankSettings) -> AsyncIterator[Reranker]:
    reranker = await open_reranker(Settings(rerank=rerank))
    assert reranker is not None
    try:
        yield reranker
    finally:
        await reranker.aclose()


@pytest.fixture(params=[fake, onnx, sentence_transformers, hosted])
async def reranker(request: pytest.FixtureRequest, cross_encoder: Path) -> AsyncIterator[Reranker]:
    async with request.param(cross_encoder) as one:
        yield one


async def test_scores_come_in_the_order_of_the_texts_and_do_not_depend_on_their_company(
    reranker: Reranker,
) -> None:
    texts = [FAR, ANSWERS, *ODD, NEAR, ANSWERS]
    scores = await reranker.score(QUESTION, texts)

    alone = [(await reranker.score(QUESTION, [text]))[0] for text in texts]
    assert scores == pytest.approx(alone, abs=1e-4)


async def test_a_text_that_answers_more_of_the_question_is_scored_higher(reranker: Reranker) -> None:
    near, far, answers = await reranker.score(QUESTION, [NEAR, FAR, ANSWERS])
    assert answers > near > far


async def test_any_text_and_any_question_have_a_finite_score(reranker: Reranker) -> None:
    for question in (QUESTION, *ODD):
        scores = await reranker.score(question, ODD)
        assert len(scores) == len(ODD)
        assert all(math.isfinite(score) for score in scores)


async def test_no_texts_have_no_scores(reranker: Reranker) -> None:
    assert await reranker.score(QUESTION, []) == []


async def test_it_has_a_name(reranker: Reranker) -> None:
    assert reranker.name


async def test_questions_at_the_same_time_each_get_their_own_scores(reranker: Reranker) -> None:
    asked = [(QUESTION, [NEAR, FAR, ANSWERS]), (NEAR, [ANSWERS, FAR]), (FAR, [NEAR, FAR, "port"])] * 5
    together = await asyncio.gather(*(reranker.score(question, texts) for question, texts in asked))

    for (question, texts), scores in zip(asked, together, strict=True):
        assert scores == pytest.approx(await reranker.score(question, texts), abs=1e-4)


async def test_who_gives_up_leaves_it_in_order_for_the_next(reranker: Reranker) -> None:
    before = await reranker.score(QUESTION, [NEAR, FAR])
    for patience in (0, 1, 2):
        given_up = asyncio.create_task(reranker.score(QUESTION, [NEAR, ANSWERS] * 20))
        for _ in range(patience):
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])

    assert await reranker.score(QUESTION, [NEAR, FAR]) == pytest.approx(before, abs=1e-4)


async def test_onnxruntime_and_sentence_transformers_give_equal_scores(cross_encoder: Path) -> None:
    texts = [FAR, ANSWERS, NEAR, *ODD, *(f"{'model ' * length}port" for length in range(0, 90, 7))]
    async with onnx(cross_encoder) as one, sentence_transformers(cross_encoder) as other:
        for question in (QUESTION, "", "what " * 40, "port " * 500):
            scores = await one.score(question, texts)
            assert scores == pytest.approx(await other.score(question, texts), abs=1e-4)


async def test_local_models_cut_what_is_longer_than_they_read(cross_encoder: Path) -> None:
    filler = "yellow " * 80
    for kind in (onnx, sentence_transformers):
        async with kind(cross_encoder) as reranker:
            cut, never, first = await reranker.score(QUESTION, [filler + ANSWERS, filler, ANSWERS + filler])
        assert cut == pytest.approx(never, abs=1e-4)
        assert first > cut + 1
