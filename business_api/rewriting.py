"""Before retrieval: what the question becomes so that the documents can be searched for it.

Each step is one short call of the LLM. All calls of a question run at once, and one deadline holds for all of
them. What fails, is late or makes no sense is left out and named; nothing is raised.
"""

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from business_api.assistants import Assistant
from business_api.errors import ServiceError
from business_api.exchange import Degradation, Delta, Generate, Message, Prompt, Question, Rewritten
from business_api.narrowing import LookUp, combined, offer, read, response_format
from business_api.passages import Narrowing, Query
from business_api.settings import RewritingSettings
from business_api.tidying import Nonsense, keep_to, one_passage, one_question, same, several_questions

CONDENSE, REWORD, HYPOTHETICAL, NARROW = "condense/v1", "reword/v1", "hypothetical/v1", "narrow/v1"
TEMPLATES = (CONDENSE, REWORD, HYPOTHETICAL, NARROW)
"""What the short calls say, by name and version."""

QUESTION_CHARACTERS = 1000
TURN_CHARACTERS = 400
TURNS = 4
"""So much of question and history goes into a short call: the ends of what is longer, the last turns."""

T = TypeVar("T")


class _LineSaid(Exception):
    """The LLM has said the one line that is wanted."""


class Fillable(Protocol):
    """A released prompt template."""

    @property
    def version(self) -> str:
        """`name/vN@digest`."""

    def filled(self, **known: object) -> list[Message]:
        """The messages with these names filled in."""


class Talk(msgspec.Struct, frozen=True):
    """Question and history as a short call shows them; no history without an earlier question."""

    question: str
    history: str = ""

    @classmethod
    def of(cls, question: Question) -> "Talk":
        """Cut the conversation to what a short call may hold."""
        said = [m for m in question.messages if m.role in ("user", "assistant") and m.content]
        last = max((at for at, m in enumerate(said) if m.role == "user"), default=0)
        turns = said[max(0, last - TURNS) : last] if any(m.role == "user" for m in said[:last]) else []
        lines = [f"{m.role.capitalize()}: {_ends(m.content or '', TURN_CHARACTERS)}" for m in turns]
        return cls(_ends(question.text, QUESTION_CHARACTERS), "\n".join(lines))

    @property
    def text(self) -> str:
        """All that was said."""
        return f"{self.history}\n{self.question}"


@dataclass
class _Course:
    """What the rewriting of one question has taken and lost so far."""

    question: Question
    talk: Talk
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[Degradation] = field(default_factory=list)


@dataclass(frozen=True)
class Rewriting:
    """Rewrites questions with an LLM. `templates` are TEMPLATES; `look_up` says what can be chosen from.

    `chains` generate in place of `generate` for the assistants that they are named by.
    """

    generate: Generate
    templates: Mapping[str, Fillable]
    settings: RewritingSettings
    look_up: LookUp
    today: Callable[[], datetime.date] = datetime.date.today
    chains: Mapping[str, Generate] = field(default_factory=dict)

    async def rewrite(self, question: Question, assistant: Assistant) -> Rewritten:
        """The question as it is searched for (the `Rewrite` port)."""
        if not (assistant.condense or assistant.rewordings or assistant.hypothetical or assistant.narrow_by):
            return await rewrite(question, assistant)
        course = _Course(question, Talk.of(question))
        condensed, rewordings, hypothetical, found = await asyncio.gather(
            self._condensed(course, assistant),
            self._rewordings(course, assistant),
            self._hypothetical(course, assistant),
            self._narrowing(course, assistant),
        )
        # a question that only comes back has not been condensed, or did not need it
        texts = (condensed,) if condensed and not same(condensed, question.text) else as_asked(question)
        asked = question.narrowing or Narrowing()
        query = Query(
            texts=(*texts, *(text for text in rewordings or () if text not in texts)),
            hypothetical=hypothetical,
            narrowing=asked,
            narrower=combined(asked, found) if found else None,
        )
        degraded = tuple(dict.fromkeys(course.degraded))
        return Rewritten(query=query, timings_ms=course.timings_ms, degraded=degraded)

    async def _condensed(self, course: _Course, assistant: Assistant) -> str | None:
        talk = course.talk
        if not (assistant.condense and talk.history):
            return None

        async def ask() -> str:
            said, whole = await self._say(CONDENSE, course, stop_after_line=True)
            return keep_to(one_question(said, whole=whole), question=talk.question, history=talk.history)

        return await self._timed(course, "condense", Degradation.CONDENSE_FAILED, ask())

    async def _rewordings(self, course: _Course, assistant: Assistant) -> tuple[str, ...] | None:
        most = assistant.rewordings
        if not most:
            return None

        async def ask() -> tuple[str, ...]:
            said, whole = await self._say(REWORD, course, count=most)
            return several_questions(said, whole=whole, known=course.talk.question, most=most)

        return await self._timed(course, "reword", Degradation.REWORDING_FAILED, ask())

    async def _hypothetical(self, course: _Course, assistant: Assistant) -> str | None:
        if not assistant.hypothetical:
            return None

        async def ask() -> str:
            return one_passage((await self._say(HYPOTHETICAL, course))[0])

        return await self._timed(course, "reword", Degradation.REWORDING_FAILED, ask())

    async def _narrowing(self, course: _Course, assistant: Assistant) -> Narrowing | None:
        if not assistant.narrow_by:
            return None

        async def ask() -> Narrowing:
            known = await self.look_up(course.question.tenant, assistant)
            offered = offer(known, course.talk.text)
            if offered is None:
                return Narrowing()
            wanted = {"response_format": response_format(offered)}
            said, _ = await self._say(NARROW, course, wanted, offered=offered, today=self.today())
            return read(said, offered)

        return await self._timed(course, "narrow", Degradation.NARROWING_FAILED, ask())

    async def _timed(self, course: _Course, stage: str, lost: Degradation, step: Awaitable[T]) -> T | None:
        """The step's result; None, and `lost` noted, when it fails, is late or brings nonsense."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.deadline):
                return await step
        except (ServiceError, TimeoutError, Nonsense):
            course.degraded.append(lost)
            return None
        finally:
            taken = (time.perf_counter() - began) * 1000
            course.timings_ms[stage] = max(taken, course.timings_ms.get(stage, 0.0))

    async def _say(
        self,
        task: str,
        course: _Course,
        sampling: Mapping[str, Any] | None = None,
        *,
        stop_after_line: bool = False,
        **known: object,
    ) -> tuple[str, bool]:
        """What the LLM says, and whether it came to an end by itself."""
        template = self.templates[task]
        talk = course.talk
        messages = template.filled(question=talk.question, history=talk.history, **known)
        # JSON has names and quotes, and small models fill it with space
        room = self.settings.max_tokens * (2 if task == NARROW else 1)
        prompt = Prompt(messages=tuple(messages), template=template.version, max_tokens=room)
        # an id of its own: vLLM refuses two running requests with the same one
        request_id = f"{course.question.id}-{task.partition('/')[0]}"
        generate = self.chains.get(course.question.assistant, self.generate)
        generation = await generate(prompt, {"temperature": 0.0, **(sampling or {})}, request_id)
        said: list[str] = []

        def note(deltas: Sequence[Delta]) -> None:
            said.extend(delta.text for delta in deltas)
            if stop_after_line and "\n" in "".join(said).strip():
                raise _LineSaid

        async with aclosing(generation):
            try:
                await generation.relay(note)
            except _LineSaid:
                return "".join(said), True
        return "".join(said), generation.finish_reason != "length"


async def rewrite(question: Question, assistant: Assistant) -> Rewritten:
    """Rewriting without an LLM."""
    return Rewritten(query=Query(as_asked(question), narrowing=question.narrowing or Narrowing()))


def as_asked(question: Question) -> tuple[str, ...]:
    """What is searched for without an LLM: of a follow-up, with the question before it and by itself.

    Both together find what a follow-up refers to as well as what a change of subject is about
    (docs/evaluation.md).
    """
    asked = [m.content for m in question.messages if m.role == "user" and m.content]
    return ("\n".join(asked[-2:]), asked[-1]) if len(asked) > 1 else tuple(asked) or ("",)


def _ends(text: str, most: int) -> str:
    """The text in one line, without its middle if it is longer than `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"
