"""An answer without an LLM: the sentences of the passages that answer best, verbatim."""

from collections.abc import Sequence

from business_api.passages import Passage


def extract(question: str, passages: Sequence[Passage]) -> str:
    """The sentences that answer best, each with its marker; "" when none has to do with the question."""
    return ""
