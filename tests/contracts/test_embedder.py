"""The promises of the Embedder port: fake, onnxruntime, sentence-transformers, hosted over a real socket."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np
import pytest

from business_api.embedding import CachedEmbedder, Embedder, open_embedder
from business_api.settings import EmbeddingSettings, Settings
from tests.embedding_server import embedding_server
from tests.fakes import LetterEmbedder, serving

TEXTS = ["Where is the port?", "The LLM server listens on port 8001.", "Grüße 🦊 汉字", " ", "port " * 700]
Adapt = Callable[[], AbstractAsyncContextManager[Embedder]]


@asynccontextmanager
async def letters() -> AsyncIterator[Embedder]:
    yield LetterEmbedder()


@asynccontextmanager
async def onnx() -> AsyncIterator[Embedder]:
    async with opened(EmbeddingSettings()) as embedder:
        yield embedder


@asynccontextmanager
async def sentence_transformers() -> AsyncIterator[Embedder]:
    async with opened(EmbeddingSettings(kind="sentence-transformers")) as embedder:
        yield embedder


@asynccontextmanager
async def hosted() -> AsyncIterator[Embedder]:
    with serving(embedding_server(LetterEmbedder())) as url:
        async with opened(EmbeddingSettings(kind="hosted", url=f"{url}/v1", model="letters")) as embedder:
            yield embedder


@asynccontextmanager
async def cached() -> AsyncIterator[Embedder]:
    yield CachedEmbedder(LetterEmbedder(), 10)


@asynccontextmanager
async def opened(embedding: EmbeddingSettings) -> AsyncIterator[Embedder]:
    embedder = await open_embedder(Settings(embedding=embedding))
    try:
        yield embedder
    finally:
        await embedder.aclose()


@pytest.fixture(params=[letters, onnx, sentence_transformers, hosted, cached])
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    async with request.param() as one:
        yield one


async def test_vectors_come_in_the_order_of_the_texts_with_length_one(embedder: Embedder) -> None:
    vectors = await embedder.embed(TEXTS)

    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        alone = (await embedder.embed([text]))[0]
        assert float(np.abs(alone - vector).max()) < 1e-5


async def test_no_texts_make_no_vectors(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.dimension)


async def test_it_has_a_name_and_a_limit(embedder: Embedder) -> None:
    assert embedder.name
    assert embedder.max_tokens == 256


async def test_the_tokenizer_counts_whole_texts(embedder: Embedder) -> None:
    if embedder.tokenizer is not None:
        assert len(embedder.tokenizer.encode("port " * 700).ids) == 702


async def test_onnxruntime_and_sentence_transformers_make_equal_vectors() -> None:
    texts = [*TEXTS, *(f"{'word ' * length}{length}" for length in range(0, 300, 23))]
    async with onnx() as one, sentence_transformers() as other:
        difference = np.abs(await one.embed(texts) - await other.embed(texts))
    assert float(difference.max()) < 1e-5


async def test_texts_of_like_meaning_have_near_vectors() -> None:
    async with onnx() as embedder:
        [question, near, far] = await embedder.embed(
            ["On which port does the server listen?", "The server's port is 8001.", "Bananas are yellow."]
        )
    assert question @ near > question @ far + 0.3
