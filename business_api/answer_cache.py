"""Identical questions: an answer that was given is given again while all that it was made from is the same.

An answer is kept under the versions that it was made by, and looked for under those that hold now: once the
documents, the prompt, the assistant or the model have changed it is not found, and nothing has to be
invalidated. Kept in the memory of this process, as the JSON of its exchange.
"""

import asyncio
import datetime
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from business_api.assistants import Assistant
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Delta, Earlier, Exchange, Outcome, Record
from business_api.unfolding import Spoken

LOOK_SECONDS = 0.25
"""Longest time to ask for the version of the index; then the question is answered as if nothing were kept."""
ENTRY_BYTES = 400
"""What an answer takes beside its JSON: its key, its place in the order of use, objects."""
DELTA_CHARS = 80
"""Least length of the deltas of an answer that is given again ..."""
MOST_DELTAS = 16
"""... and how many they are at most."""
OF_THE_ASKER = {"id": "", "key": None, "priority": None, "conversation": None, "cache": True}
"""Fields of a question that do not change its answer. All others, and those to come, are in the key."""
OF_THE_ASKING = frozenset(
    "question at contract outcome answer tool_calls degraded timings_ms finish_reason usage attempts error "
    "cached".split()
)
"""Fields of an exchange that are its own, or are set as the answer is read. All others are carried over."""
CARRIED = tuple(name for name in Exchange.__struct_fields__ if name not in OF_THE_ASKING)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Exchange).decode


class Indexed(Protocol):
    """A store that can say what it holds now."""

    async def index(self, tenant: str) -> str:
        """What `Hits.index` of a search would be now. Raises RetrievalUnavailable."""


class _Told(msgspec.Struct, frozen=True):
    """What the LLM tier said of itself in its last answer, and which models it served then."""

    model: str
    fingerprint: str | None
    served: Collection[str]


class _Kept(msgspec.Struct, frozen=True, gc=False):
    at: float
    until: float
    record: bytes

    @property
    def size(self) -> int:
        return len(self.record) + ENTRY_BYTES


class Recalled(Spoken):
    """A Generation that was given before, in deltas of which none is waited for."""

    def __init__(self, past: Exchange) -> None:
        super().__init__(past.answer, model=past.versions["model"], finish_reason="stop")
        self.fingerprint = past.versions.get("fingerprint")
        self.usage = past.usage

    def _deltas(self) -> Sequence[Delta]:
        size = max(DELTA_CHARS, math.ceil(len(self._text) / MOST_DELTAS))
        return [Delta(self._text[start : start + size]) for start in range(0, len(self._text), size)]


class AnswerCache:
    """Answers of the assistants that want it, at most `limit` bytes; those used longest ago go first.

    One that is too old is never given again; it leaves the memory once it is the one used longest ago.

    `templates` has the version of each template, `stores` the store of each collection; `served` says which
    models the LLM tier serves now, as far as it is known.
    """

    def __init__(
        self,
        limit: int,
        *,
        assistants: Iterable[Assistant],
        templates: Mapping[str, str],
        stores: Mapping[str, Indexed],
        served: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._seconds = {one.name: one.cache_seconds for one in assistants if one.cache_seconds}
        self._templates, self._stores, self._served, self._clock = templates, stores, served, clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._told: _Told | None = None
        self.patience = LOOK_SECONDS
        self.bytes = 0
        self.counts = {"hit": 0, "miss": 0, "bypass": 0}

    async def recall(self, exchange: Exchange, assistant: Assistant) -> Recalled | None:
        """The answer to this question if it is kept (the `Recall` port)."""
        began = time.perf_counter()
        found = await self._found(exchange, assistant) if exchange.question.cache else None
        self.counts[("hit" if found else "miss") if exchange.question.cache else "bypass"] += 1
        exchange.timings_ms["cache"] = (time.perf_counter() - began) * 1000
        if found is None:
            return None
        age, past = found
        for name in CARRIED:
            setattr(exchange, name, getattr(past, name))
        exchange.cached = Earlier(past.id, round(age, 1))
        return Recalled(past)

    def keeping(self, record: Record) -> Record:
        """`record`, keeping the answers that may be given again."""

        def record_and_keep(exchange: Exchange) -> None:
            record(exchange)
            if exchange.cached is not None or exchange.outcome is not Outcome.ANSWERED or exchange.degraded:
                return
            versions = exchange.versions
            self._told = _Told(versions["model"], versions.get("fingerprint"), self._served())
            seconds = self._seconds.get(exchange.question.assistant)
            if seconds is not None and _may_be_repeated(exchange):
                self._keep(exchange, seconds)

        return record_and_keep

    async def _found(self, exchange: Exchange, assistant: Assistant) -> tuple[float, Exchange] | None:
        """Seconds since the answer was given, and its exchange."""
        versions = await self._versions(exchange.question.tenant, assistant)
        if versions is None:
            return None
        key = key_of(exchange, versions)
        kept = self._kept.get(key)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return now - kept.at, _decode(kept.record)

    async def _versions(self, tenant: str, assistant: Assistant) -> dict[str, str] | None:
        """The versions that an answer would be made by now; None while they are not known."""
        told = self._told
        if told is None or told.served != self._served():
            return None
        versions = {"assistant": assistant.version, "model": told.model}
        versions["prompt"] = self._templates[assistant.template] if assistant.template else "none"
        if told.fingerprint:
            versions["fingerprint"] = told.fingerprint
        if assistant.collection is not None:
            try:
                async with asyncio.timeout(self.patience):
                    versions["index"] = await self._stores[assistant.collection].index(tenant)
            except (RetrievalUnavailable, TimeoutError):
                return None
        return versions

    def _keep(self, exchange: Exchange, seconds: float) -> None:
        now = self._clock()
        try:
            key, kept = key_of(exchange, exchange.versions), _Kept(now, now + seconds, _encode(exchange))
        except ValueError:  # half a surrogate pair, as an LLM may say it, cannot be written down
            return
        self._drop(key)
        if kept.size > self._limit:
            return
        self._kept[key] = kept
        self.bytes += kept.size
        while self.bytes > self._limit or self._kept[next(iter(self._kept))].until <= now:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= kept.size


def key_of(exchange: Exchange, versions: Mapping[str, str]) -> bytes:
    """32 bytes, BLAKE2b of the question, the versions, and the day, which prompts may name."""
    asked = msgspec.structs.replace(exchange.question, **OF_THE_ASKER)
    day = datetime.date.fromtimestamp(exchange.at)
    made_from = _encode((asked, sorted(versions.items()), day))
    return hashlib.blake2b(made_from, digest_size=32).digest()


def _may_be_repeated(exchange: Exchange) -> bool:
    """Whether the answer is whole, and text is all of it: calls and logprobs are not kept."""
    more = exchange.tool_calls or exchange.thought or exchange.question.sampling.get("logprobs")
    text_only = exchange.answer and not more
    return exchange.finish_reason == "stop" and bool(text_only)
