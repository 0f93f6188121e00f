"""Who asks what, and how: questions about our documentation, and the bodies they are sent in."""

import random
from typing import Any

QUESTIONS = (
    "Which port does the LLM server listen on?",
    "How do I ingest my own documents?",
    "What is in the tandem object of an answer?",
    "How do I create an API key, and how do I revoke it?",
    "What happens to an exchange when the caller hangs up?",
    "Which fields of the OpenAI API are passed through?",
    "How does a citation prove what it quotes?",
    "What does /readyz check that /healthz does not?",
    "How do I point the business API at a hosted LLM?",
    "Which file formats can be ingested?",
    "How is a document replaced when it changes?",
    "What does X-Degraded mean?",
    "How do I add an assistant with its own prompt?",
    "When does the service answer 503, and what is in Retry-After?",
    "How many tokens of history are sent along?",
    "How is the rate limit set?",
)
FOLLOW_UPS = (
    "And where is that configured?",
    "Say that in one sentence.",
    "What if it fails?",
    "Is there a command for it?",
)
LONGEST_CONVERSATION = 4


def question(turn: int = 0) -> str:
    """A question; later turns of a conversation ask follow-ups."""
    return random.choice(FOLLOW_UPS if turn else QUESTIONS)


def asked(model: str, text: str, *, stream: bool = True, max_tokens: int | None = None) -> dict[str, Any]:
    """The body of a chat completion."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body if max_tokens is None else body | {"max_tokens": max_tokens}


def said(text: str, conversation: str | None, assistant: str) -> dict[str, Any]:
    """The body of a `/chat` message."""
    body: dict[str, Any] = {"message": text, "assistant": assistant, "stream": True}
    return body if conversation is None else body | {"conversation": conversation}
