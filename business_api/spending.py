"""How many tokens a question may take before it is asked, and how many an exchange took."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from business_api.assistants import Assistant
from business_api.exchange import Degradation, Exchange, Message, Outcome, Question

MESSAGE_TOKENS = 8
"""Tokens that a chat template adds around a message: generous for ChatML and Llama 3."""
PASSAGE_TOKENS = 256
"""What a passage is taken for before it is found: a chunk's size. A template is taken for as much."""


def upper_estimate(messages: Iterable[Message], bytes_per_token: float) -> int:
    """What these messages cost at most, in tokens."""
    sizes = (len((m.content or "").encode()) + sum(len(str(c)) for c in m.tool_calls or ()) for m in messages)
    return sum(math.ceil(size / bytes_per_token) + MESSAGE_TOKENS for size in sizes)


@dataclass(frozen=True)
class Spending:
    """Estimates for an LLM that takes `context_tokens`, prompt and answer together."""

    context_tokens: int
    bytes_per_token: float

    def estimate(self, question: Question, assistant: Assistant) -> int:
        """Tokens that a question may take: its messages, the passages to come, the longest answer."""
        prompt = upper_estimate(question.messages, self.bytes_per_token)
        prompt += self._tokens("".join(map(str, question.sampling.get("tools") or ())))
        if assistant.collection is not None:
            prompt += PASSAGE_TOKENS * (assistant.passages + 1)
        return min(prompt + (question.max_tokens or assistant.max_tokens), self.context_tokens)

    def spent(self, exchange: Exchange) -> int:
        """Tokens that an exchange took: the LLM's count, else an estimate of what it read and wrote.

        Nothing where the LLM was not asked, or failed before it wrote anything.
        """
        if exchange.usage is not None:
            return exchange.usage.total_tokens
        if exchange.prompt is None or Degradation.EXTRACTIVE_ANSWER in exchange.degraded:
            return 0
        written = self._tokens(exchange.answer) + self._tokens("".join(map(str, exchange.tool_calls)))
        written += math.ceil(exchange.thought / self.bytes_per_token)
        if not written and exchange.outcome != Outcome.ABANDONED:
            return 0
        return upper_estimate(exchange.prompt.messages, self.bytes_per_token) + written

    def _tokens(self, text: str) -> int:
        return math.ceil(len(text.encode()) / self.bytes_per_token)
