"""What `/v1/chat/completions` accepts: OpenAI's fields, typed. Anything else is a 400 naming it."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from business_api.errors import InvalidRequest
from business_api.exchange import Message, Priority
from business_api.passages import LANGUAGE_TAG, Narrowing, primary_language

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
PASSED_ON = (
    "temperature", "top_p", "stop", "seed", "response_format", "logprobs", "top_logprobs", "tools",
    "tool_choice", "parallel_tool_calls", "presence_penalty", "frequency_penalty", "logit_bias",
    "reasoning_effort",
)  # fmt: skip
"""Fields that go to the LLM exactly as they came."""


Text = Annotated[str, msgspec.Meta(min_length=1)]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]


class Filter(Narrowing, frozen=True):
    """A narrowing as a caller sends it. What is empty is refused: it might mean all documents, or none."""

    documents: Texts = ()
    language: Annotated[str, msgspec.Meta(pattern=LANGUAGE_TAG)] | None = None
    tags: Texts = ()


class TandemFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be asked for beyond OpenAI's fields: the `tandem` object of a request."""

    explain: bool = False
    cache: bool = True
    filter: Filter | None = None
    priority: Priority | None = None

    @property
    def narrowing(self) -> Narrowing | None:
        """The filter in our words."""
        if self.filter is None:
            return None
        asked = msgspec.convert(self.filter, Narrowing, from_attributes=True)
        return replace(asked, language=primary_language(asked.language) if asked.language else None)


class Part(msgspec.Struct):
    """A part of a message's content; only text can be honoured."""

    type: str
    text: str | None = None


class WireMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message as OpenAI's clients send it. Echoed assistant messages bring empty fields along."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    reasoning_content: str | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """OpenAI's stream options."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a chat completion request."""

    messages: list[WireMessage]
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    # These do not change the answer: accepted so that clients work unchanged.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    # Ours.
    tandem: TandemFields = TandemFields()

    def sampling(self) -> dict[str, Any]:
        """The fields that go to the LLM, those that were given."""
        given = {name: getattr(self, name) for name in PASSED_ON}
        return {name: value for name, value in given.items() if value is not None}

    def question_messages(self) -> tuple[Message, ...]:
        """The conversation in our words. Raises InvalidRequest for content that is not text."""
        return tuple(_message(number, message) for number, message in enumerate(self.messages))


def _message(number: int, message: WireMessage) -> Message:
    content = message.content
    if isinstance(content, list):
        for place, part in enumerate(content):
            if part.type != "text" or part.text is None:
                field = f"messages[{number}].content[{place}]"
                raise InvalidRequest(f"{field}: {part.type} is not supported, only text is", param=field)
        content = "".join(part.text or "" for part in content)
    return Message(
        role=message.role,
        content=content,
        name=message.name,
        tool_calls=message.tool_calls,
        tool_call_id=message.tool_call_id,
    )
