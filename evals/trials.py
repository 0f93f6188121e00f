"""Asks the questions of a set as a request would, with the retriever that serves, and takes the time."""

import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from business_api.assistants import Assistant
from business_api.embedding import Embedder
from business_api.exchange import Found
from business_api.passages import Query
from business_api.reranking import Reranker
from business_api.retrieval import Retriever
from business_api.vector_store import VectorStore
from evals.indexes import COLLECTION, TENANT
from evals.showing import shown

WARM_UP = 5
TIMED = 100
"""Questions whose embedding is timed."""

Scores = dict[str, dict[str, float]]
"""By measure and question."""


class Times(msgspec.Struct, frozen=True):
    """What each question took: milliseconds on the clock, milliseconds of CPU."""

    ms: list[float]
    cpu_ms: list[float]

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the questions was done."""
        return float(np.percentile(self.ms, share, method="higher"))

    @property
    def cpu(self) -> float:
        """Milliseconds of CPU a question, on average."""
        return float(np.mean(self.cpu_ms))


class Trial(msgspec.Struct, frozen=True):
    """What one configuration reached, and what its retrieval took without the embedder."""

    scores: Scores
    times: Times


def retriever_of(store: VectorStore, embedder: Embedder, reranker: Reranker | None = None) -> Retriever:
    """The retriever that serves, with so much time that a busy machine changes no result."""
    return Retriever({COLLECTION: store}, embedder, 600.0, 600.0, reranker, 600.0)


async def ask_all(
    retriever: Retriever, questions: Mapping[str, str], assistant: Assistant, doing: str
) -> tuple[dict[str, Found], Times]:
    """What is found for each question, one after the other."""
    assistant = msgspec.structs.replace(assistant, collection=COLLECTION)
    for text in list(questions.values())[:WARM_UP]:
        await retriever.retrieve(Query((text,)), TENANT, assistant)
    found, ms, cpu_ms = {}, [], []
    for key in shown(list(questions), doing):
        query = Query((questions[key],))
        began, cpu_began = time.perf_counter(), time.process_time()
        found[key] = await retriever.retrieve(query, TENANT, assistant)
        cpu_ms.append((time.process_time() - cpu_began) * 1000)
        ms.append((time.perf_counter() - began) * 1000)
    return found, Times(ms, cpu_ms)


async def embedding_times(embedder: Embedder, questions: Sequence[str]) -> Times:
    """What embedding a question takes, one at a time."""
    ms, cpu_ms = [], []
    for number, text in enumerate(shown(questions[: WARM_UP + TIMED], "timing the embedder")):
        began, cpu_began = time.perf_counter(), time.process_time()
        await embedder.embed([text])
        if number >= min(WARM_UP, len(questions) - 1):
            cpu_ms.append((time.process_time() - cpu_began) * 1000)
            ms.append((time.perf_counter() - began) * 1000)
    return Times(ms, cpu_ms)
