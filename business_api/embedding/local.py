"""Runs an embedding model in threads of this process: questions first, alike lengths together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from business_api.embedding.protocol import Vectors
from business_api.errors import RetrievalUnavailable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENS_A_RUN = 1024
"""Bounds memory and the time that a question waits for the run before it; more tokens gain no speed."""

CHARACTERS_PER_TOKEN = 3

Encode = Callable[[Sequence[str]], Vectors]
"""Blocks; called from several threads at once."""


class _Job:
    """One text on its way."""

    def __init__(self, text: str, vector: "asyncio.Future[Vectors]", max_tokens: int) -> None:
        self.text = text
        self.vector = vector
        self.tokens = min(len(text) // CHARACTERS_PER_TOKEN + 2, max_tokens)


class LocalEmbedder:
    """An Embedder over a blocking `encode`, run on `threads` threads.

    Single texts (questions) go before lists of texts (ingestion). While all threads are busy, what waits is
    collected and run together; what its caller no longer waits for is not run at all.
    """

    def __init__(
        self,
        name: str,
        encode: Encode,
        *,
        dimension: int,
        max_tokens: int,
        tokenizer: "Tokenizer",
        threads: int,
    ) -> None:
        self.name = name
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.tokenizer: Tokenizer | None = tokenizer
        self._encode = encode
        self._idle = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._questions: deque[_Job] = deque()
        self._bulk: deque[_Job] = deque()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 unit vectors, in the order of the texts. Raises RetrievalUnavailable."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        loop = asyncio.get_running_loop()
        jobs = [_Job(text, loop.create_future(), self.max_tokens) for text in texts]
        if len(jobs) == 1:
            self._questions.append(jobs[0])
        else:
            self._bulk.extend(sorted(jobs, key=lambda job: job.tokens))
        self._start()
        try:
            return np.stack(await asyncio.gather(*(job.vector for job in jobs)))
        finally:
            for job in jobs:
                job.vector.cancel()

    async def aclose(self) -> None:
        """Finish the runs that have begun, drop the others."""
        for job in (*self._questions, *self._bulk):
            if not job.vector.done():
                job.vector.set_exception(RetrievalUnavailable("the embedding model is closed"))
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _start(self) -> None:
        """Put idle threads to work."""
        loop = asyncio.get_running_loop()
        while self._idle and (batch := self._next()):
            self._idle -= 1
            run = loop.run_in_executor(self._pool, self._encode, [job.text for job in batch])
            run.add_done_callback(partial(self._done, batch))

    def _next(self) -> list[_Job]:
        """The jobs of one run: questions if there are any, within the token budget."""
        batch: list[_Job] = []
        waiting = self._questions if any(not job.vector.done() for job in self._questions) else self._bulk
        longest = 0
        while waiting:
            longest = max(longest, waiting[0].tokens)
            if batch and longest * (len(batch) + 1) > TOKENS_A_RUN:
                break
            job = waiting.popleft()
            if not job.vector.done():
                batch.append(job)
        return batch

    def _done(self, batch: list[_Job], run: "asyncio.Future[Vectors]") -> None:
        """Hand the vectors out, and go on."""
        self._idle += 1
        failure = RetrievalUnavailable("the embedding model is closed")
        if not run.cancelled() and run.exception() is not None:
            failure = RetrievalUnavailable("the embedding model failed")
            failure.__cause__ = run.exception()
        ended = run.cancelled() or run.exception() is not None
        for place, job in enumerate(batch):
            if job.vector.done():
                continue
            if ended:
                job.vector.set_exception(failure)
            else:
                job.vector.set_result(run.result()[place])
        if not run.cancelled():
            self._start()
