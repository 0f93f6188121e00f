"""What is asked of the simulated LLM server: read, refused as vLLM refuses, or made an answer."""

from typing import TypeVar

import msgspec

from loadtests.simulated_answering import Answering, Form
from loadtests.simulated_batching import Preset
from loadtests.simulated_faults import Fault
from loadtests.simulated_http import Connection
from loadtests.simulated_wire import (
    Asked,
    answered,
    blocks_of,
    document,
    error_payload,
    prompt_text,
    tokens_of,
)

Decoded = TypeVar("Decoded")


class Tokenize(msgspec.Struct):
    """The text of an answer, or its beginning, whose tokens are to be counted."""

    prompt: str


class Refused(Exception):
    """An answer with a status of its own, told as vLLM tells it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = document(status, error_payload(status, message))


def decoded(body: bytes, kind: type[Decoded]) -> Decoded:
    """The body as what it should be. Raises Refused."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise Refused(400, str(exc)) from exc


def accepted(body: bytes, preset: Preset) -> Asked:
    """The request. Raises Refused as vLLM would."""
    asked = decoded(body, Asked)
    if asked.model not in (None, preset.model):
        raise Refused(404, f"The model `{asked.model}` does not exist.")
    if not asked.messages:
        raise Refused(400, "messages must not be empty")
    if asked.continue_final_message and asked.add_generation_prompt:
        raise Refused(400, "Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    return asked


def answering(
    asked: Asked, request_id: str, preset: Preset, connection: Connection, *, fault: Fault | None, now: float
) -> Answering:
    """The answer to be made. Raises Refused when it does not fit behind the prompt."""
    text = prompt_text(asked)
    prompt, most, longest = tokens_of(text), asked.most or 1, preset.max_model_len
    if prompt + most > longest:
        raise Refused(
            400,
            f"This model's maximum context length is {longest} tokens. However, you requested "
            f"{most} output tokens and your prompt contains {prompt} input tokens.",
        )
    answer = answered(asked, preset.answer_tokens, longest - prompt)
    counted = asked.stream_options is not None and asked.stream_options.include_usage
    return Answering(
        prompt=prompt,
        most=len(answer.tokens),
        blocks=blocks_of(text),
        connection=connection,
        answer=answer,
        form=Form(request_id, preset.model, bool(asked.stream), counted, preset.stream_interval),
        fault=fault,
        arrived=now,
    )


def failing(fault: Fault) -> bytes:
    """The refusal that was told."""
    wait = "" if fault.retry_after is None else f"retry-after: {fault.retry_after}\r\n"
    return document(fault.status, error_payload(fault.status, "told to fail"), wait)


def tokenized(body: bytes) -> bytes:
    """The tokens of what an answer said: a word each. Raises Refused."""
    words = decoded(body, Tokenize).prompt.split()
    return document(200, msgspec.json.encode({"count": len(words), "tokens": list(range(len(words)))}))
