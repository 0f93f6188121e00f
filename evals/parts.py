"""What every evaluation works with: settings, an embedder that remembers, the assistant under test."""

import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from business_api.assistants import Assistant, Assistants
from business_api.embedding import Embedder, open_embedder
from business_api.errors import InvalidRequest
from business_api.reranking import Reranker, open_reranker
from business_api.settings import Settings
from evals.kept_vectors import KeptVectors


class Parts(msgspec.Struct, frozen=True):
    """The parts of an evaluation; `plain_embedder` is the one behind `embedder`, which remembers nothing."""

    settings: Settings
    assistant: Assistant
    embedder: KeptVectors
    plain_embedder: Embedder
    reranker: Reranker | None = None

    @property
    def kept(self) -> Path:
        """Where vectors and indexes stay between two evaluations."""
        return kept_folder(self.settings)


def kept_folder(settings: Settings) -> Path:
    """`var/eval`."""
    return settings.var / "eval"


@asynccontextmanager
async def opened(settings: Settings, assistant: Assistant) -> AsyncIterator[Parts]:
    """The parts that the settings name."""
    plain = await open_embedder(settings)
    async with AsyncExitStack() as opening:
        embedder = KeptVectors(plain, kept_folder(settings))
        opening.push_async_callback(embedder.aclose)
        reranker = await open_reranker(settings)
        if reranker is not None:
            opening.push_async_callback(reranker.aclose)
        yield Parts(settings, assistant, embedder, plain, reranker)


def assistant_of(settings: Settings, name: str | None, changes: Sequence[str]) -> Assistant:
    """The assistant of this name (None: the first one) with `field=value` changes.

    Raises InvalidRequest for an unknown field or a value that it cannot have, UnknownAssistant.
    """
    assistants = Assistants.load(settings.assistants)
    chosen = assistants.get(name or assistants.default)
    return changed(chosen, dict(map(_change, changes)))


def changed(assistant: Assistant, changes: dict[str, Any]) -> Assistant:
    """The assistant with other values. Raises InvalidRequest."""
    try:
        return msgspec.convert(msgspec.to_builtins(assistant) | changes, Assistant)
    except (msgspec.ValidationError, ValueError) as exc:
        said = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise InvalidRequest(f"assistant with {said}: {exc}") from exc


def _change(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals:
        raise InvalidRequest(f"{given!r}: expected field=value, such as fusion=rrf")
    try:
        return name.strip(), tomllib.loads(f"it = {value}")["it"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
