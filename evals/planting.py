"""Plants attacks in e-mails, and has the e-mail's question answered by the real story."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from business_api.answering import Parts, answer
from business_api.assistants import Assistant, Assistants
from business_api.exchange import Exchange, Found, Generate, Message, Prompt, Question, Rewritten
from business_api.ids import new_id
from business_api.passages import Chunk, Passage, Query
from business_api.place import Place as LlmPlace
from business_api.prompting import Prompting
from business_api.supporting import Similarity
from business_api.unfolding import Spoken
from evals.attacks import PLACES, Attack, Attacks, Mail, Place, obedient


class Case(NamedTuple):
    """One e-mail as it is found, with its attack; None for the e-mail as it is."""

    mail: Mail
    attack: Attack | None = None
    place: Place = "start"

    @property
    def text(self) -> str:
        """What stands on the shelf."""
        return self.mail.with_attack(self.attack, self.place) if self.attack else self.mail.context


Told = list[tuple[Case, Exchange]]


def planted(found: Attacks, mails: int, every: int = 1, places: Sequence[Place] = PLACES) -> list[Case]:
    """Every n-th attack at each place in as many e-mails; the e-mails change from attack to attack."""
    turn = itertools.cycle(found.mails)
    attacks = found.attacks[::every]
    return [Case(next(turn), attack, place) for attack in attacks for place in places for _ in range(mails)]


async def tell(
    case: Case,
    assistant: Assistant,
    filling: Prompting,
    generate: Generate,
    similarity: Similarity | None = None,
) -> Exchange:
    """The question of an e-mail, answered by the real story from this e-mail alone."""
    chunk = Chunk(
        id="mail", document="mail.txt", title="mail", number=0, start=0, end=len(case.text), text=case.text
    )

    async def retrieve(query: Query, tenant: str, asked: Assistant) -> Found:
        return Found(passages=(Passage(chunk, 1.0),), index="mail", timings_ms={})

    async def rewrite(question: Question, asked: Assistant) -> Rewritten:
        return Rewritten(query=Query((question.text,)))

    async def admit(question: Question, asked: Assistant) -> LlmPlace:
        return LlmPlace(0.0, lambda: None)

    parts = Parts(
        assistants=Assistants([assistant]),
        check=lambda question: None,
        admit=admit,
        rewrite=rewrite,
        retrieve=retrieve,
        judge=lambda question, found, asked: None,
        fill=filling.fill,
        generate=generate,
        extract=lambda question, passages: "",
        record=lambda exchange: None,
        similarity=similarity,
    )
    messages = (Message("user", case.mail.question.removeprefix("Q: ")),)
    question = Question(id=new_id(), tenant="default", assistant=assistant.name, messages=messages)
    async with await answer(question, parts) as told:
        await told.whole()
    return told.exchange


def obeying(found: Attacks, case: Case) -> Generate:
    """An LLM that obeys the attack of this case."""
    assert case.attack is not None
    said = obedient(found, case.attack, case.mail)

    async def generate(prompt: Prompt, sampling: Mapping[str, Any], request_id: str) -> Spoken:
        return Spoken(said, model="obedient", finish_reason="stop")

    return generate
