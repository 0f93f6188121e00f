"""Runs a cross-encoder in threads of this process, in runs so small that a deadline is soon obeyed."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from business_api.errors import RetrievalUnavailable

TOKENS_A_RUN = 256
"""About one passage: on a CPU larger runs gain no speed, and what has begun cannot be stopped."""

CHARACTERS_PER_TOKEN = 3

Logits = Callable[[str, Sequence[str]], npt.NDArray[Any]]
"""(question, n texts) -> (n, labels). Blocks; called from several threads at once."""


def relevance(logits: npt.NDArray[Any]) -> list[float]:
    """One score a row: the logit of the only label, or the second label's less the first's.

    Raises ValueError for another number of labels or a score that is not finite.
    """
    if logits.ndim != 2 or logits.shape[1] not in (1, 2):
        raise ValueError(f"logits of the shape {logits.shape}")
    scores = logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    if not np.all(np.isfinite(scores)):
        raise ValueError("a score that is not a number")
    return [float(score) for score in scores]


def tried(logits: Logits, name: str) -> Logits:
    """The same, after a first run. Raises ValueError when it is no cross-encoder."""
    try:
        relevance(logits("question", ["text"]))
    except Exception as exc:  # whatever the library raises for inputs or outputs of other models
        raise ValueError(f"{name} is no cross-encoder with one label or two") from exc
    return logits


class _Run:
    """Some texts of one question on their way."""

    def __init__(self, question: str, texts: Sequence[str], places: list[int]) -> None:
        self.question = question
        self.texts = [texts[place] for place in places]
        self.places = places
        self.scores: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()


class LocalReranker:
    """A Reranker over blocking `logits`, run on `threads` threads.

    A question that has begun goes on; of those that wait the newest is next. Under more load than the threads
    can take, some are then reranked in time, instead of all too late.
    """

    def __init__(self, name: str, logits: Logits, *, max_tokens: int, threads: int) -> None:
        self.name = name
        self.max_tokens = max_tokens
        self._logits = logits
        self._idle = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rerank")
        self._begun: deque[_Run] = deque()
        self._waiting: dict[int, deque[_Run]] = {}

    async def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """One score a text, in the order of the texts, higher is better. Raises RetrievalUnavailable."""
        runs = [_Run(question, texts, places) for places in self._parted(question, texts)]
        self._waiting[id(runs)] = deque(runs)
        self._start()
        try:
            found = await asyncio.gather(*(run.scores for run in runs))
        finally:
            self._waiting.pop(id(runs), None)
            for run in runs:
                run.scores.cancel()
        scores = [0.0] * len(texts)
        for run, values in zip(runs, found, strict=True):
            for place, value in zip(run.places, values, strict=True):
                scores[place] = value
        return scores

    async def aclose(self) -> None:
        """Finish the runs that have begun, drop the others."""
        for run in (*self._begun, *(run for runs in self._waiting.values() for run in runs)):
            if not run.scores.done():
                run.scores.set_exception(RetrievalUnavailable("the reranking model is closed"))
        await asyncio.to_thread(self._pool.shutdown)

    def _parted(self, question: str, texts: Sequence[str]) -> list[list[int]]:
        """The places of the texts of each run: alike lengths together, within the token budget."""
        parts: list[list[int]] = []
        for place in sorted(range(len(texts)), key=lambda place: len(texts[place])):
            characters = len(question) + len(texts[place])
            tokens = min(characters // CHARACTERS_PER_TOKEN + 3, self.max_tokens)
            if not parts or tokens * (len(parts[-1]) + 1) > TOKENS_A_RUN:
                parts.append([])
            parts[-1].append(place)
        return parts

    def _start(self) -> None:
        """Put idle threads to work."""
        loop = asyncio.get_running_loop()
        while self._idle and (run := self._next()):
            self._idle -= 1
            ended = loop.run_in_executor(self._pool, self._scores, run.question, run.texts)
            ended.add_done_callback(partial(self._done, run))

    def _next(self) -> _Run | None:
        """The next run that somebody still waits for."""
        while self._begun or self._waiting:
            if not self._begun:
                self._begun = self._waiting.popitem()[1]
                continue
            run = self._begun.popleft()
            if not run.scores.done():
                return run
        return None

    def _scores(self, question: str, texts: Sequence[str]) -> list[float]:
        return relevance(self._logits(question, texts))

    def _done(self, run: _Run, ended: "asyncio.Future[list[float]]") -> None:
        """Hand the scores out, and go on."""
        self._idle += 1
        error = ended.exception()
        if not run.scores.done():
            if error is None:
                run.scores.set_result(ended.result())
            else:
                failure = RetrievalUnavailable("the reranking model failed")
                failure.__cause__ = error
                run.scores.set_exception(failure)
        self._start()
