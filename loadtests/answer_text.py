"""What an answer said, out of the bytes of its body, and what the simulated LLM server would have said."""

from typing import Any

import msgspec

from loadtests.simulated_wire import Asked, answered


class _Said(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    message: _Said | None = None


class _Attempt(msgspec.Struct):
    outcome: str = ""


class _Tandem(msgspec.Struct):
    degraded: tuple[str, ...] = ()
    attempts: tuple[_Attempt, ...] = ()


class _Frame(msgspec.Struct):
    choices: tuple[_Choice, ...] = ()
    tandem: _Tandem | None = None


_frames = msgspec.json.Decoder(_Frame)


def said_of(body: bytes) -> tuple[str, tuple[str, ...], bool]:
    """The text of an answer, streamed or not; outcomes of its attempts; whether it says it was resumed.

    A frame that was cut off or is no JSON is passed over.
    """
    payloads = [body]
    if b"data: " in body:
        payloads = [line[6:] for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    text, trail, resumed = [], tuple[str, ...](), False
    for payload in payloads:
        try:
            frame = _frames.decode(payload)
        except msgspec.DecodeError:
            continue
        said = [choice.delta or choice.message for choice in frame.choices]
        text += [one.content for one in said if one is not None and one.content]
        if frame.tandem is not None:
            trail = tuple(one.outcome for one in frame.tandem.attempts)
            resumed = "resumed" in frame.tandem.degraded
    return "".join(text), trail, resumed


def expected(body: dict[str, Any], serial: int, answer_tokens: int = 200) -> str:
    """What the simulated LLM server says to `body` with this serial, whichever replica is asked."""
    worded = msgspec.json.encode(body).replace(b"{serial}", b"%08d" % serial)
    return "".join(answered(msgspec.json.decode(worded, type=Asked), answer_tokens, 1 << 20).tokens)
