"""Loads released templates and fits passages, history and question into the model's token budget.

A template is a TOML file `prompts/NAME/vN.toml` that never changes once released (prompts/released.toml
holds the digests). It is rendered by a sandboxed Jinja2 and never comes from a request. Passages are numbered
as they were found, best first, in whatever order the template shows them.
"""

import hashlib
import secrets
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from business_api.assistants import Assistant
from business_api.compressing import compress
from business_api.errors import PromptTooLong
from business_api.exchange import Degradation, Message, Prompt, Question
from business_api.fencing import fence, inert, one_line
from business_api.passages import Passage
from business_api.spending import upper_estimate

Order = Literal["best_first", "best_last", "edges"]
"""How passages are laid out; `edges` has the best ones first and last, the worst in the middle, where models
read least (Liu et al. 2023, Lost in the Middle, arXiv 2307.03172)."""


Shown = dict[str, object]
"""A passage as a template knows it: `marker`, `document`, `heading`, `text`."""


class UnknownTemplate(ValueError):
    """No released template has this name; the message lists those there are."""


@dataclass(frozen=True)
class Template:
    """A released template. `version` is `name/vN@digest`."""

    version: str
    messages: tuple[tuple[str, Any], ...]
    order: Order = "best_first"

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
            table = tomllib.loads(raw.decode())
            messages = tuple(
                (m["role"], sandbox.from_string(m["content"].strip())) for m in table["messages"]
            )
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TemplateError) as exc:
            raise ValueError(f"template {path} cannot be read: {exc}") from exc
        order = table.get("order", "best_first")
        if order not in get_args(Order):
            raise ValueError(f"template {path}: order must be one of {', '.join(get_args(Order))}")
        return cls(f"{name}@{hashlib.sha256(raw).hexdigest()[:12]}", messages, order)

    def filled(self, **known: object) -> list[Message]:
        """The template's messages with these names filled in."""
        return [Message(role=role, content=body.render(known).strip()) for role, body in self.messages]


@dataclass(frozen=True)
class Prompting:
    """Fills prompts for one LLM: `context_tokens` is its window, prompt and answer together."""

    templates: dict[str, Template]
    context_tokens: int
    bytes_per_token: float
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def fill(self, question: Question, assistant: Assistant, passages: Sequence[Passage]) -> Prompt:
        """The prompt: instructions, as much history as fits, then passages and question.

        Passages come before history when there is not room for both. Without a template the caller's messages
        go to the LLM as they are. Raises PromptTooLong when the question does not fit, or leaves no room for
        any passage and the assistant does not answer without.
        """
        max_tokens = question.max_tokens or assistant.max_tokens
        if assistant.template is None:
            return Prompt(messages=question.messages, max_tokens=max_tokens)
        if assistant.compress:
            passages = compress(question.text, passages)
        template = self.templates[assistant.template]
        history, tail = _around_question(question.messages)
        system = _system(question.messages)
        beside = self.tokens([*system, *tail])
        page = _Page(template, question.text, passages, self._fence(question, passages), beside)
        room = self.context_tokens - max_tokens
        kept = self._fitting_passages(page, passages, room)
        if passages and not kept and assistant.without_passages == "abstain":
            raise self._too_long("the question leaves no room for a passage")
        filled = page.filled(kept)
        turns = self._fitting_turns(_turns(history), room - page.beside - self.tokens(filled))
        cut = {
            Degradation.PASSAGES_CUT: len(kept) < len(passages),
            Degradation.HISTORY_CUT: len(turns) < len(_turns(history)),
        }
        return Prompt(
            messages=_assembled(filled, system, turns, tail),
            template=template.version,
            passages=tuple(kept),
            max_tokens=max_tokens,
            degraded=tuple(name for name, happened in cut.items() if happened),
        )

    def tokens(self, messages: Iterable[Message]) -> int:
        """Upper estimate of what these messages cost, in tokens."""
        return upper_estimate(messages, self.bytes_per_token)

    def _fence(self, question: Question, passages: Sequence[Passage]) -> str:
        said = (message.content or "" for message in question.messages)
        return fence(self.secret, (*said, *(passage.chunk.text for passage in passages)))

    def _fitting_passages(self, page: "_Page", passages: Sequence[Passage], room: int) -> list[Passage]:
        """The best passages that fit together: each whole, one that is too long makes way for the next."""
        if self._fits(page, passages, room):
            return list(passages)
        if not self._fits(page, (), room):
            raise self._too_long("the question does not fit")
        kept: list[Passage] = []
        for passage in passages:
            if self._fits(page, [*kept, passage], room):
                kept.append(passage)
        return kept

    def _fits(self, page: "_Page", passages: Sequence[Passage], room: int) -> bool:
        return self.tokens(page.filled(passages)) <= room - page.beside

    def _too_long(self, why: str) -> PromptTooLong:
        return PromptTooLong(
            f"{why}: the model takes {self.context_tokens} tokens, answer included", param="messages"
        )

    def _fitting_turns(self, turns: list[list[Message]], room: int) -> list[list[Message]]:
        kept: list[list[Message]] = []
        for turn in reversed(turns):
            room -= self.tokens(turn)
            if room < 0:
                break
            kept.insert(0, turn)
        return kept


class _Page:
    """What a prompt is made of; `beside` are the tokens of the caller's own messages."""

    def __init__(
        self, template: Template, question: str, passages: Sequence[Passage], fence: str, beside: int
    ) -> None:
        self.beside = beside
        self._template = template
        self._known = {"question": question, "fence": fence}
        self._shown = {passage: _shown(passage, fence) for passage in passages}

    def filled(self, passages: Sequence[Passage]) -> list[Message]:
        """The template's messages; passages are numbered from 1 and laid out in the template's order."""
        numbered = [self._shown[passage] | {"marker": number} for number, passage in enumerate(passages, 1)]
        return self._template.filled(passages=laid_out(numbered, self._template.order), **self._known)


def laid_out(best_first: Sequence[Shown], order: Order) -> list[Shown]:
    """The passages in the order in which a prompt shows them."""
    if order == "best_first":
        return list(best_first)
    if order == "best_last":
        return list(reversed(best_first))
    return [*best_first[::2], *reversed(best_first[1::2])]


def _shown(passage: Passage, fence: str) -> Shown:
    chunk = passage.chunk
    heading = " > ".join(chunk.heading) or chunk.title
    return {
        "document": one_line(chunk.document, fence),
        "heading": one_line(heading, fence),
        "text": inert(chunk.text, fence).strip(),
    }


def _around_question(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """What came before the last user message, and what follows it (tool calls and their results)."""
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=len(messages))
    before = [m for m in messages[:last] if m.role not in ("system", "developer")]
    return before, [m for m in messages[last + 1 :] if m.role not in ("system", "developer")]


def _system(messages: Sequence[Message]) -> list[Message]:
    return [m for m in messages if m.role in ("system", "developer")]


def _turns(history: Sequence[Message]) -> list[list[Message]]:
    """History cut into turns, each a user message with all that answers it, so that no tool call is split."""
    turns: list[list[Message]] = []
    for message in history:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _assembled(
    filled: list[Message], system: list[Message], turns: list[list[Message]], tail: list[Message]
) -> tuple[Message, ...]:
    """One system message (many chat templates allow no second), then the turns, then the question."""
    ours = [m for m in filled if m.role == "system"]
    texts = [m.content for m in (*ours, *system) if m.content]
    head = [Message(role="system", content="\n\n".join(texts))] if texts else []
    rest = [m for m in filled if m.role != "system"]
    return (*head, *(m for turn in turns for m in turn), *rest, *tail)
