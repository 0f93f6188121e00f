"""What the simulated LLM server says: vLLM's JSON and SSE frames, and answers that follow from the question.

An answer is a pure function of the messages. Every eighth token is its own number, so a piece that is missing
or doubled shows at a glance. A continued answer goes on where the given piece ends, even inside a token.
"""

import hashlib
import itertools
import random
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from loadtests.simulated_batching import BLOCK_TOKENS

TOKEN_CHARS = 4
NUMBERED = 8
END = ""
"""The token that ends an answer; it is counted, and has no text."""
FINGERPRINT = "simulated-vllm"
WORDS = tuple(
    "the port server answer setting question file request token model passage limit queue batch step cache "
    "prompt stream frame caller replica budget health metric retry delay name value list table index search "
    "vector document chunk page line word text number time memory disk network socket address header body "
    "status error reason start end first last next each every some many few this that which where when how "
    "is was will can must may has had does gives takes keeps holds sends reads writes opens closes waits "
    "runs stops counts shows tells asks finds moves grows falls slowly quickly always never often again "
    "before after while until because although and but or so then also only just still even".split()
)
STATUS_NAMES = {
    400: ("Bad Request", "BadRequestError"),
    404: ("Not Found", "NotFoundError"),
    429: ("Too Many Requests", "RateLimitError"),
    500: ("Internal Server Error", "InternalServerError"),
    503: ("Service Unavailable", "ServiceUnavailableError"),
}
BUSY = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class StreamOptions(msgspec.Struct, frozen=True):
    """Whether usage is told in a stream."""

    include_usage: bool = False


class Asked(msgspec.Struct, frozen=True):
    """The fields of a chat completion that change what is answered; others, sampling too, are read over."""

    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    ignore_eos: bool = False
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    @property
    def most(self) -> int | None:
        """The most tokens that the caller wants."""
        return self.max_completion_tokens or self.max_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens to say, and why it ends. `foreign`: what was to be continued is not what was said before."""

    tokens: tuple[str, ...]
    finish_reason: str
    foreign: bool = False


def text_of(message: dict[str, Any]) -> str:
    """A message's text; parts of other kinds are left out."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def prompt_text(asked: Asked) -> str:
    """All messages in one text, as a chat template would have it."""
    return "".join(f"<|{message.get('role')}|>{text_of(message)}" for message in asked.messages)


def tokens_of(text: str) -> int:
    """How many tokens a prompt counts: one for four characters."""
    return len(text) // TOKEN_CHARS + 1


def blocks_of(text: str) -> tuple[int, ...]:
    """A hash for every full block of the prompt, each over all that comes before it."""
    size = BLOCK_TOKENS * TOKEN_CHARS
    pieces = (text[start : start + size] for start in range(0, len(text) - size + 1, size))
    return tuple(itertools.accumulate(pieces, lambda before, piece: hash((before, piece)), initial=0))[1:]


@lru_cache(512)
def spoken(seed: int, number: int) -> tuple[str, ...]:
    """The first tokens of the endless answer that belongs to a seed."""
    words = random.Random(seed).choices(WORDS, k=number)
    return tuple(
        f" {place}" if place % NUMBERED == 0 else f" {word}" if place > 1 else word.capitalize()
        for place, word in enumerate(words, start=1)
    )


def answered(asked: Asked, mean_tokens: int, room: int) -> Answer:
    """The answer: between half and one and a half times `mean_tokens` long, cut at `room` tokens."""
    said = text_of(asked.messages[-1]) if asked.continue_final_message else ""
    seed = _seed(asked.messages[:-1] if asked.continue_final_message else asked.messages)
    natural = mean_tokens // 2 + seed % (mean_tokens + 1)
    most = min(room, asked.most or room)
    wanted = most if asked.ignore_eos else natural
    whole = spoken(seed, len(said) // 2 + 1 + wanted)
    rest = _after(whole, said)
    if rest is None:
        return Answer(spoken(_seed(asked.messages), min(wanted, most)), "length", foreign=True)
    left = most if asked.ignore_eos else max(0, natural - (len(whole) - len(rest)))
    if left >= most:
        return Answer(rest[:most], "length")
    return Answer((*rest[:left], END), "stop")


def _seed(messages: list[dict[str, Any]]) -> int:
    told = msgspec.json.encode([(message.get("role"), text_of(message)) for message in messages])
    return int.from_bytes(hashlib.blake2b(told, digest_size=6).digest())


def _after(tokens: tuple[str, ...], said: str) -> tuple[str, ...] | None:
    """The tokens behind what was said, the first perhaps only in part; None: it does not begin so."""
    reached = 0
    for place, token in enumerate(tokens):
        if reached == len(said):
            return tokens[place:]
        piece = said[reached : reached + len(token)]
        if not token.startswith(piece):
            return None
        reached += len(piece)
        if len(piece) < len(token):
            return (token[len(piece) :], *tokens[place + 1 :])
    return None


def stream_head(request_id: str) -> bytes:
    """Status and headers of a stream."""
    return (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        f"transfer-encoding: chunked\r\nx-request-id: {request_id}\r\n\r\n"
    ).encode()


def chunk_head(request_id: str, model: str) -> bytes:
    """How all stream frames of an answer begin."""
    known = f'"object":"chat.completion.chunk","created":{int(time.time())},"model":"{model}"'
    return f'data: {{"id":"chatcmpl-{request_id}",{known},"choices":['.encode()


def framed(payload: bytes) -> bytes:
    """An SSE frame as one piece of a chunked body. `payload` begins with `data: `."""
    return b"%x\r\n%b\n\n\r\n" % (len(payload) + 2, payload)


@lru_cache(4096)
def _tail(text: str) -> bytes:
    tail = b'{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]}\n\n\r\n'
    return tail % msgspec.json.encode(text)


def text_frame(head: bytes, text: str) -> bytes:
    """A frame with text, as one piece of a chunked body. Written once a token for each stream: cached."""
    tail = _tail(text)
    return b"%x\r\n%b%b" % (len(head) + len(tail) - 2, head, tail)


def last_frame(head: bytes, text: str, finish: str) -> bytes:
    """The frame that says why the answer ends."""
    tail = b'{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":"%b"}]}'
    return framed(head + tail % (msgspec.json.encode(text), finish.encode()))


def role_frame(head: bytes) -> bytes:
    """The frame before the first text."""
    tail = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}'
    return framed(head + tail)


def usage_of(prompt: int, said: int, cached: int) -> dict[str, Any]:
    """Tokens of a finished answer."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + said,
        "completion_tokens": said,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def usage_frame(head: bytes, usage: dict[str, Any]) -> bytes:
    """The frame with usage, without choices."""
    return framed(head + b'],"usage":%b}' % msgspec.json.encode(usage))


def error_payload(status: int, message: str) -> bytes:
    """vLLM's error envelope."""
    kind = STATUS_NAMES.get(status, STATUS_NAMES[500])[1]
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": status}})


def document(status: int, body: bytes, headers: str = "", kind: str = "application/json") -> bytes:
    """A whole response. `headers` are lines that end in CRLF."""
    reason = "OK" if status == 200 else STATUS_NAMES.get(status, STATUS_NAMES[500])[0]
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def whole_body(request_id: str, model: str, text: str, finish: str, usage: dict[str, Any]) -> bytes:
    """The JSON of an answer that is not streamed."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
            "choices": [choice],
            "usage": usage,
        }
    )
