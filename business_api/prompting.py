"""Loads released templates and fits passages, history and question into the model's token budget.

A template is a TOML file `prompts/NAME/vN.toml` that never changes once released (prompts/released.toml
holds the digests). It is rendered by a sandboxed Jinja2 and never comes from a request.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from business_api.assistants import Assistant
from business_api.errors import PromptTooLong
from business_api.exchange import Degradation, Message, Prompt, Question
from business_api.passages import Passage

MESSAGE_TOKENS = 8
"""Tokens that a chat template adds around a message: generous for ChatML and Llama 3."""


class UnknownTemplate(ValueError):
    """No released template has this name; the message lists those there are."""


@dataclass(frozen=True)
class Template:
    """A released template. `version` is `name/vN@digest`."""

    version: str
    messages: tuple[tuple[str, Any], ...]

    @classmethod
    def load(cls, folder: Path, name: str) -> "Template":
        """Read `folder/NAME/vN.toml`. Raises UnknownTemplate, or ValueError for a template that is broken."""
        path = folder / f"{name}.toml"
        if not path.is_file():
            known = sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.glob("*/*.toml"))
            raise UnknownTemplate(
                f"no template {name!r} in {folder}; there are: {', '.join(known) or 'none'}"
            )
        raw = path.read_bytes()
        sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=False)
        try:
            messages = tuple(
                (m["role"], sandbox.from_string(m["content"].strip()))
                for m in tomllib.loads(raw.decode())["messages"]
            )
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TemplateError) as exc:
            raise ValueError(f"template {path} cannot be read: {exc}") from exc
        return cls(f"{name}@{hashlib.sha256(raw).hexdigest()[:12]}", messages)

    def render(self, question: str, passages: Sequence[Passage]) -> list[Message]:
        """The template's messages with the question and the passages, numbered from 1, filled in."""
        numbered = [_for_template(number, passage) for number, passage in enumerate(passages, 1)]
        return [
            Message(role=role, content=body.render(question=question, passages=numbered).strip())
            for role, body in self.messages
        ]


@dataclass(frozen=True)
class Prompting:
    """Fills prompts for one LLM: `context_tokens` is its window, prompt and answer together."""

    templates: dict[str, Template]
    context_tokens: int
    bytes_per_token: float

    def fill(self, question: Question, assistant: Assistant, passages: Sequence[Passage]) -> Prompt:
        """The prompt: instructions, as much history as fits, then passages and question.

        Passages come before history when there is not room for both. Raises PromptTooLong when not even
        the question fits. Without a template the caller's messages go to the LLM as they are.
        """
        max_tokens = question.max_tokens or assistant.max_tokens
        if assistant.template is None:
            return Prompt(messages=question.messages, max_tokens=max_tokens)
        template = self.templates[assistant.template]
        history, tail = _around_question(question.messages)
        room = self.context_tokens - max_tokens
        kept, degraded = self._fitting_passages(template, question.text, passages, tail, room)
        filled = template.render(question.text, kept)
        turns = self._fitting_turns(_turns(history), room - self.tokens([*filled, *tail]))
        if len(turns) < len(_turns(history)):
            degraded = (*degraded, Degradation.HISTORY_CUT)
        return Prompt(
            messages=_assembled(filled, _system_texts(question.messages), turns, tail),
            template=template.version,
            passages=tuple(kept),
            max_tokens=max_tokens,
            degraded=degraded,
        )

    def tokens(self, messages: Iterable[Message]) -> int:
        """Upper estimate of what these messages cost, in tokens."""
        sizes = (
            len((m.content or "").encode()) + sum(len(str(c)) for c in m.tool_calls or ()) for m in messages
        )
        return sum(math.ceil(size / self.bytes_per_token) + MESSAGE_TOKENS for size in sizes)

    def _fitting_passages(
        self, template: Template, text: str, passages: Sequence[Passage], tail: Sequence[Message], room: int
    ) -> tuple[list[Passage], tuple[Degradation, ...]]:
        for count in range(len(passages), -1, -1):
            if self.tokens([*template.render(text, passages[:count]), *tail]) <= room:
                cut = count < len(passages)
                return list(passages[:count]), ((Degradation.PASSAGES_CUT,) if cut else ())
        raise PromptTooLong(
            f"the question does not fit: the model takes {self.context_tokens} tokens, answer included",
            param="messages",
        )

    def _fitting_turns(self, turns: list[list[Message]], room: int) -> list[list[Message]]:
        kept: list[list[Message]] = []
        for turn in reversed(turns):
            room -= self.tokens(turn)
            if room < 0:
                break
            kept.insert(0, turn)
        return kept


def _for_template(number: int, passage: Passage) -> dict[str, object]:
    chunk = passage.chunk
    heading = " > ".join(chunk.heading) or chunk.title
    return {"marker": number, "document": chunk.document, "heading": heading, "text": chunk.text.strip()}


def _around_question(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """What came before the last user message, and what follows it (tool calls and their results)."""
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=len(messages))
    before = [m for m in messages[:last] if m.role not in ("system", "developer")]
    return before, [m for m in messages[last + 1 :] if m.role not in ("system", "developer")]


def _system_texts(messages: Sequence[Message]) -> list[str]:
    return [m.content for m in messages if m.role in ("system", "developer") and m.content]


def _turns(history: Sequence[Message]) -> list[list[Message]]:
    """History cut into turns, each a user message with all that answers it, so that no tool call is split."""
    turns: list[list[Message]] = []
    for message in history:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _assembled(
    filled: list[Message], system: list[str], turns: list[list[Message]], tail: list[Message]
) -> tuple[Message, ...]:
    """One system message (many chat templates allow no second), then the turns, then the question."""
    texts = [*(m.content or "" for m in filled if m.role == "system"), *system]
    head = [Message(role="system", content="\n\n".join(texts))] if texts else []
    rest = [m for m in filled if m.role != "system"]
    return (*head, *(m for turn in turns for m in turn), *rest, *tail)
