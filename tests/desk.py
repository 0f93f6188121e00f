"""A desk where questions are rewritten with a scripted LLM, for the tests of rewriting and narrowing."""

import datetime
from collections.abc import Callable
from typing import Any

from business_api.assistants import Assistant
from business_api.exchange import Generate, Message, Question, Rewritten
from business_api.narrowing import Facets
from business_api.passages import Narrowing
from business_api.prompting import Template
from business_api.rewriting import TEMPLATES, Rewriting
from business_api.settings import ROOT, LlmSettings, RewritingSettings
from business_api.transport import InProcess
from business_api.upstream import Upstream
from tests.fakes import FakeLlm

PORT, CHANGE = "Which port does the LLM server listen on?", "And how do I change it?"
FALLBACK = (f"{PORT}\n{CHANGE}", CHANGE)
CONDENSED = "How do I change the port of the LLM server?"
TASKS = {
    "condense": "by itself",
    "reword": "to ask it",
    "hypothetical": "manual",
    "narrow": "Answer with JSON",
}
KNOWN = Facets(("docs/ports.md", "docs/keys.md"), ("de", "en"), ("ports", "api keys"), dated=True)


def told(answers: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    """The LLM's answer by task."""

    def answer(body: dict[str, Any]) -> str:
        asked = "\n".join(message["content"] for message in body["messages"])
        (task,) = [task for task, mark in TASKS.items() if mark in asked]
        return answers.get(task, "")

    return answer


class Desk:
    """Rewriting with a scripted LLM."""

    def __init__(self, llm: FakeLlm | None = None, known: Facets | Exception = KNOWN, **answers: str) -> None:
        self.llm = llm or FakeLlm(answer_for=told({"condense": CONDENSED, **answers}))
        self.known = known
        self.upstream = Upstream(InProcess(self.llm), LlmSettings())
        self.looked: list[str] = []
        self.chains: dict[str, Generate] = {}

    async def look_up(self, tenant: str, assistant: Assistant) -> Facets:
        self.looked.append(tenant)
        if isinstance(self.known, Exception):
            raise self.known
        return self.known

    async def rewrite(
        self,
        *said: str,
        roles: str = "uauaua",
        narrowing: Narrowing | None = None,
        deadline: float = 5.0,
        **assistant: Any,
    ) -> Rewritten:
        """The last question of the conversation rewritten; `roles` are the initials of who spoke."""
        names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
        messages = tuple(Message(role=names[r], content=text) for r, text in zip(roles, said, strict=False))
        question = Question(id="x1", tenant="t", assistant="kb", messages=messages, narrowing=narrowing)
        templates = {name: Template.load(ROOT / "prompts", name) for name in TEMPLATES}
        settings = RewritingSettings(deadline=deadline)
        today = datetime.date(2024, 3, 31)
        rewriting = Rewriting(
            self.upstream.generate,
            templates,
            settings,
            self.look_up,
            today=lambda: today,
            chains=self.chains,
        )
        return await rewriting.rewrite(question, Assistant(name="kb", collection="kb", **assistant))

    @property
    def heard(self) -> str:
        """All that the LLM was asked."""
        return "\n".join(m["content"] for one in self.llm.requests for m in one.body["messages"])


async def follow_up(desk: Desk, **assistant: Any) -> Rewritten:
    return await desk.rewrite(PORT, "It is 8001.", CHANGE, **assistant)
