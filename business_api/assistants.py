"""Assistants: what the `model` of an OpenAI request names. Read from assistants.toml, once."""

import hashlib
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from business_api.errors import UnknownAssistant
from business_api.wrong_field import wrong_field

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Fusion = Literal["sum", "rrf", "dbsf"]
Support = Literal["off", "flag", "enforce"]


class Assistant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of answering: where to search, what to say to the LLM, what to do without passages.

    `collection` None turns retrieval off: the assistant is a plain relay to the LLM. Every field is described
    in docs/assistants-and-prompts.md, with what it was measured to bring in docs/evaluation.md.
    """

    name: str = ""
    description: str = ""
    collection: str | None = None
    template: str | None = None
    # before retrieval
    condense: bool = True
    rewordings: Annotated[int, msgspec.Meta(ge=0, le=4)] = 0
    hypothetical: bool = False
    narrow_by: tuple[Literal["documents", "language", "tags", "date"], ...] = ()
    # retrieval
    passages: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    candidates: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    fusion: Fusion = "sum"
    dense_weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    bm25_weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    # after retrieval
    duplicate_share: Fraction = 1.0
    join_neighbours: bool = False
    rerank: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    compress: bool = False
    # what is said
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 256
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    stop: Annotated[tuple[str, ...], msgspec.Meta(max_length=4)] = ()
    support: Support = "flag"
    abstain: Literal["never", "flag", "refuse"] = "never"
    risk: Fraction = 0.3
    without_passages: Literal["abstain", "answer"] = "abstain"
    when_retrieval_fails: Literal["refuse", "answer"] = "refuse"
    fallbacks: tuple[str, ...] = ()
    when_llm_fails: Literal["refuse", "extract"] = "refuse"
    cache_seconds: Annotated[int, msgspec.Meta(ge=0, le=604_800)] = 0
    suggestions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dense_weight + self.bm25_weight == 0:
            raise ValueError("dense_weight and bm25_weight are both 0: nothing would be searched")

    @property
    def version(self) -> str:
        """`name@digest`: two assistants with the same version answer by the same settings."""
        return _version(self)


@cache
def _version(assistant: Assistant) -> str:
    """Every answer carries it, and it never changes."""
    digest = hashlib.sha256(msgspec.json.encode(assistant, order="deterministic")).hexdigest()[:12]
    return f"{assistant.name}@{digest}"


class Assistants:
    """All assistants by name; the first one of the file is the default."""

    def __init__(self, assistants: list[Assistant]) -> None:
        self._by_name = {assistant.name: assistant for assistant in assistants}
        self.default = assistants[0].name

    @classmethod
    def load(cls, path: Path) -> "Assistants":
        """Read a TOML file of `[name]` tables. Raises ValueError that names the file and the field."""
        try:
            tables = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as exc:
            raise ValueError(f"{path}: {exc}") from exc
        except OSError as exc:
            raise ValueError(f"the assistants (BUSINESS_API_ASSISTANTS) cannot be read: {exc}") from exc
        found = [cls._one(path, name, table) for name, table in tables.items()]
        if not found:
            raise ValueError(f"{path}: no assistant; add a table such as [tandem]")
        return cls(found)

    @staticmethod
    def _one(path: Path, name: str, table: object) -> Assistant:
        if not isinstance(table, dict):
            raise ValueError(f"{path}: {name} stands outside a table such as [tandem]")
        try:
            return msgspec.convert(table | {"name": name}, Assistant)
        except msgspec.ValidationError as exc:
            raise ValueError(f"{path}: [{name}]: {wrong_field(str(exc), Assistant)[0]}") from exc

    def __iter__(self) -> Iterator[Assistant]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Assistant:
        """The assistant of this name. Raises UnknownAssistant."""
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            raise UnknownAssistant(f"no assistant {name[:80]!r}; there are: {known}", param="model")
        return self._by_name[name]
