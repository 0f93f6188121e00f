"""Which documents a question is about: what an LLM may say of it, and what of that is believed.

An LLM chooses among values that the tenant's documents have and that the question names, so it can make up
none. What it says narrows what the caller asked for, and never widens it.
"""

import datetime
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from business_api.assistants import Assistant
from business_api.passages import Narrowing
from business_api.tidying import Nonsense, meaningful
from business_api.vector_store import VectorStore
from business_api.vector_store.protocol import Keyword

KNOWN = 2000
"""Most values of each kind that are read of the index, those of most chunks."""

OFFERED = 30
"""Most values of each kind among which the LLM chooses."""
_MOST = 3


class Facets(msgspec.Struct, frozen=True):
    """Values that documents of one tenant have; `dated`: they may be narrowed by date."""

    documents: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    dated: bool = False


LookUp = Callable[[str, Assistant], Awaitable[Facets]]
"""(tenant, assistant) -> Facets of the assistant's collection. Raises RetrievalUnavailable."""


def looking_in(stores: Mapping[str, VectorStore]) -> LookUp:
    """A LookUp in the stores of the assistants' collections; it reads what the assistant is narrowed by."""

    async def look_up(tenant: str, assistant: Assistant) -> Facets:
        store = stores[assistant.collection or ""]

        async def values(kind: str, key: Keyword) -> tuple[str, ...]:
            return tuple(await store.values(tenant, key, KNOWN)) if kind in assistant.narrow_by else ()

        return Facets(
            documents=await values("documents", "document"),
            languages=await values("language", "language"),
            tags=await values("tags", "tags"),
            dated="date" in assistant.narrow_by,
        )

    return look_up


class _Said(msgspec.Struct, frozen=True):
    documents: object = None
    language: object = None
    tags: object = None
    after: object = None
    before: object = None


def offer(known: Facets, text: str) -> Facets | None:
    """What the LLM may choose from for this text: documents and tags that it names, any language and date.

    None when there is nothing to choose.
    """
    named = meaningful(text)
    found = Facets(
        documents=_named(known.documents, named),
        languages=known.languages[:OFFERED],
        tags=_named(known.tags, named),
        dated=known.dated,
    )
    return found if found != Facets() else None


def _named(values: Sequence[str], named: set[str]) -> tuple[str, ...]:
    shared = [(len(named & _words_of(value)), value) for value in values]
    best = sorted((one for one in shared if one[0]), key=lambda one: -one[0])
    return tuple(value for _, value in best[:OFFERED])


@lru_cache(maxsize=4 * KNOWN)
def _words_of(value: str) -> frozenset[str]:
    return frozenset(meaningful(value))


def response_format(offered: Facets) -> dict[str, Any]:
    """OpenAI's `response_format` for what is offered: a JSON schema whose every field may be left open."""
    fields: dict[str, Any] = {}
    if offered.documents:
        fields["documents"] = _some(offered.documents)
    if offered.languages:
        fields["language"] = {"anyOf": [{"type": "string", "enum": list(offered.languages)}, _NULL]}
    if offered.tags:
        fields["tags"] = _some(offered.tags)
    if offered.dated:
        fields |= {"after": {"anyOf": [_DAY, _NULL]}, "before": {"anyOf": [_DAY, _NULL]}}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {
        "type": "json_schema",
        "json_schema": {"name": "narrowing", "strict": True, "schema": schema},
    }


_NULL = {"type": "null"}
_DAY = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}


def _some(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(values)}, "maxItems": _MOST}


def read(said: str, offered: Facets) -> Narrowing:
    """What the LLM chose; what was not offered or is of the wrong type is dropped.

    Raises Nonsense when it is no JSON object.
    """
    try:
        found = msgspec.json.decode(said[said.find("{") : said.rfind("}") + 1], type=_Said)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise Nonsense from exc
    language = found.language if found.language in offered.languages else None
    after, before = (_day(one) if offered.dated else None for one in (found.after, found.before))
    if after and before and after > before:
        after = before = None
    return Narrowing(
        documents=_chosen(found.documents, offered.documents),
        language=language if isinstance(language, str) else None,
        tags=_chosen(found.tags, offered.tags),
        after=after,
        before=before,
    )


def _chosen(said: object, offered: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in offered if one in said) if isinstance(said, list) else ()


def _day(said: object) -> datetime.date | None:
    try:
        return msgspec.convert(said, datetime.date)
    except msgspec.ValidationError:
        return None


def combined(asked: Narrowing, found: Narrowing) -> Narrowing:
    """What the caller asked for, narrowed by what was found; a finding that contradicts it is dropped."""
    after = max((day for day in (asked.after, found.after) if day), default=None)
    before = min((day for day in (asked.before, found.before) if day), default=None)
    if after and before and after > before:
        after, before = asked.after, asked.before
    return Narrowing(
        documents=_both(asked.documents, found.documents),
        language=asked.language or found.language,
        tags=_both(asked.tags, found.tags),
        after=after,
        before=before,
    )


def _both(asked: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
    """Empty means any: what both name, or what the caller asked for when they name nothing in common."""
    if not asked:
        return found
    return tuple(one for one in asked if one in found) or asked
