"""Before retrieval: what the question becomes so that the documents can be searched for it."""

from business_api.assistants import Assistant
from business_api.exchange import Question, Rewritten
from business_api.passages import Narrowing, Query


async def rewrite(question: Question, assistant: Assistant) -> Rewritten:
    """The question as it is searched for."""
    return Rewritten(query=Query((search_text(question),), narrowing=question.narrowing or Narrowing()))


def search_text(question: Question) -> str:
    """What is searched for without an LLM: the question, after the one before it when there is history."""
    asked = [m.content for m in question.messages if m.role == "user" and m.content]
    return "\n".join(asked[-2:])
