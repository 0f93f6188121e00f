"""What one more token of a prompt costs in time to the first token, learned from what is seen."""

from typing import NamedTuple

MEMORY = 1000
"""Samples that the regression remembers."""
SPREAD = 50.0
"""Tokens; prompts that differ less say little about what a token costs."""
MOMENT = 16
"""Samples whose mean is that of the moment."""


class Sample(NamedTuple):
    """A first token: when the request was sent (seconds), how long it took, tokens of its prompt."""

    sent: float
    ttft_ms: float
    prompt_tokens: int


class PromptCost:
    """Milliseconds that one more prompt token takes: regression of TTFT on length that forgets slowly.

    Both are measured from their means of the moment: a queue that comes and goes is no cost of prompts.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._tokens = self._ttft = self._variance = self._covariance = 0.0

    @property
    def typical_ms(self) -> float:
        """Mean time to the first token, of the last MOMENT or so."""
        return self._ttft

    @property
    def per_token(self) -> float:
        """ms, never negative."""
        return max(0.0, self._covariance / (self._variance + SPREAD**2))

    def learn(self, sample: Sample) -> None:
        """Take one more sample into account."""
        self._seen += 1
        tokens, ttft = sample.prompt_tokens - self._tokens, sample.ttft_ms - self._ttft
        moment, weight = 1 / min(self._seen, MOMENT), 1 / min(self._seen, MEMORY)
        self._tokens += moment * tokens
        self._ttft += moment * ttft
        self._variance = (1 - weight) * (self._variance + weight * tokens * tokens)
        self._covariance = (1 - weight) * (self._covariance + weight * tokens * ttft)
