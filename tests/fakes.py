"""Stand-ins for the ports, and a real web server to put an app behind. Fakes work, remember, and can fail."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn

from business_api.assistants import Assistant
from business_api.exchange import Degradation, Exchange, Found, Judgement
from business_api.passages import Candidate, Chunk, Passage, Query
from tests.fake_llm import FakeLlm, Heard

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "FakeLlm",
    "FixedJudge",
    "FixedShelf",
    "Heard",
    "LetterEmbedder",
    "Notebook",
    "eventually",
    "passage",
    "serving",
]

LETTERS = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}


@dataclass
class Notebook:
    """A Record that remembers: `Notebook().record` is the port."""

    exchanges: list[Exchange] = field(default_factory=list)

    def record(self, exchange: Exchange) -> None:
        """Keep the exchange."""
        self.exchanges.append(exchange)


@dataclass
class FixedShelf:
    """A Retrieve port with the same passages for everyone: `FixedShelf(...).retrieve`.

    `asked` and `queries` remember. It takes `seconds`.
    """

    passages: tuple[Passage, ...] = ()
    error: Exception | None = None
    seconds: float = 0.0
    degraded: tuple[Degradation, ...] = ()
    index: str = "kb__v1_letters@1"
    candidates: tuple[Candidate, ...] = ()
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)

    async def retrieve(self, query: Query, tenant: str, assistant: Assistant) -> Found:
        """The passages, at most as many as the assistant wants; raises `error` if there is one."""
        self.asked.append((query.text, tenant, assistant.name))
        self.queries.append(query)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        kept = self.passages[: assistant.passages]
        timings = {"embed": 0.1, "search": 0.2}
        return Found(
            passages=kept,
            index=self.index,
            timings_ms=timings,
            candidates=self.candidates,
            degraded=self.degraded,
        )


@dataclass
class FixedJudge:
    """A Judge that always says the same: a probability, or None for an assistant that never abstains."""

    probability: float | None = None
    threshold: float = 0.5
    asked: list[str] = field(default_factory=list)

    def judge(self, question: str, found: Found, assistant: Assistant) -> Judgement | None:
        """The judgement; remembers the question."""
        self.asked.append(question)
        return None if self.probability is None else Judgement(self.probability, self.threshold)


@dataclass
class LetterEmbedder:
    """An Embedder that a person can check: counts of a-z, then of digits modulo 6, scaled to length 1."""

    name: str = "letters"
    dimension: int = 32
    max_tokens: int = 256
    tokenizer: "Tokenizer | None" = None
    error: Exception | None = None
    seen: list[str] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(n, 32) float32 unit vectors; raises `error` if there is one."""
        self.seen.extend(texts)
        if self.error is not None:
            raise self.error
        counts = np.array([_letter_counts(text) for text in texts], dtype=np.float32).reshape(-1, 32)
        counts /= np.linalg.norm(counts, axis=1, keepdims=True)
        return counts

    async def aclose(self) -> None:
        """Nothing is open."""


def _letter_counts(text: str) -> list[float]:
    counts = [0.0] * 32
    for letter in text.lower():
        if letter in LETTERS:
            counts[LETTERS[letter]] += 1
        elif letter.isdecimal():
            counts[26 + int(letter) % 6] += 1
    return counts if any(counts) else [1.0] * 32


def passage(text: str, document: str = "docs/a.md", *, number: int = 0, score: float = 1.0) -> Passage:
    """A passage whose chunk is the whole of a document with this text."""
    chunk = Chunk(
        id=f"{document}#{number}",
        document=document,
        title=document.rsplit("/", 1)[-1],
        number=number,
        start=0,
        end=len(text),
        text=text,
    )
    return Passage(chunk, score)


class _Server(uvicorn.Server):
    """uvicorn that tells when it listens, and stops without polling."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()
        self._stop: Callable[[], object] = lambda: None

    async def main_loop(self) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        await self.on_tick(0)
        self.settled.set()
        await stopping.wait()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            with suppress(SystemExit):  # how uvicorn says that the app did not start
                super().run(sockets)
        finally:
            self.settled.set()

    def stop(self) -> None:
        self._stop()


@contextmanager
def serving(app: Any, port: int = 0, *, grace: int = 1) -> Iterator[str]:
    """Serve an ASGI app from a thread, over a real socket; yields `http://127.0.0.1:PORT`.

    At the end running responses get `grace` seconds, then they are cut. Port 0 takes a free one; the same
    port can be served again at once. Raises RuntimeError if the app does not start.
    """
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(
        app, log_config=None, log_level="critical", ws="none", timeout_graceful_shutdown=grace
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    server.settled.wait()
    if not server.started:
        thread.join()
        listener.close()
        raise RuntimeError("the app did not start")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        thread.join()


async def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until `holds()`. Raises TimeoutError if it does not come true."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for may live in another thread
            await asyncio.sleep(0.01)
