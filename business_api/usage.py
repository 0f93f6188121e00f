"""What an answer took: tokens, and attempts at having it."""

from typing import Annotated

import msgspec

Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the LLM server counted them."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Tokens


class Attempt(msgspec.Struct, frozen=True):
    """One try to have the LLM answer: which server, how it ended, milliseconds."""

    replica: str
    outcome: str
    ms: float
