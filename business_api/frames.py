"""What is read of an LLM server's streamed chunks, typed: anything else in them is not an answer."""

from typing import Any

import msgspec

from business_api.usage import Usage


class Function(msgspec.Struct, gc=False):
    """The called function, a piece at a time."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """A piece of a tool call."""

    index: int = 0
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Content(msgspec.Struct, gc=False):
    """What a choice says in this frame."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    """The older name for the same; what is no text is passed over."""

    @property
    def thought(self) -> str | None:
        """What the model thinks before it answers."""
        found = self.reasoning or self.reasoning_content
        return found if isinstance(found, str) else None


class Logprobs(msgspec.Struct, gc=False):
    """Log probabilities, passed on."""

    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers; we ask for one."""

    index: int = 0
    delta: Content | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Frame(msgspec.Struct, gc=False):
    """One server-sent event of an answer; fields that we do not read are left out."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: Any = None
