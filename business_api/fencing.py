"""Tells what documents say apart from what the LLM is told: fences nobody can foresee, no control tokens.

A document may hold instructions to the LLM. That it obeys none cannot be ensured here; that a passage cannot
end itself, nor open a message of its own, can.
"""

import hmac
import re
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

FENCE_LETTERS = 12
SECRET_BYTES = 32
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_UNSEEN = dict.fromkeys(
    (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0xE0000, 0xE0080)), None
)
"""Control characters, and the tag characters: letters that no reader sees and an LLM reads."""
_TOKEN = re.compile(
    r"""
      <(?=[|\uff5c][^\s<>]{1,64}>)              # <|im_start|>, <|turn>; the wide bar is DeepSeek's
    | <(?=[^\s<>|\uff5c]{1,64}[|\uff5c]>)       # <turn|>
    | <(?=/?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|(?:start|end)_of_\w{1,32})>)
    | <(?=</?SYS>>)
    | \[(?=/?(?:INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_\w{1,32}|ARGS|CALL_ID|THINK)\])
    """,
    re.VERBOSE,
)
"""Where a text begins that chat templates use as a token: LLM servers read such text as the token itself."""


def kept_secret(path: Path) -> bytes:
    """The secret in this file, which the first call makes, for its owner only.

    Processes that share it fence alike: a question has the same prompt in each of them and after a restart.
    Raises ValueError for a file that is no secret, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent) as whole:
            whole.write(secrets.token_bytes(SECRET_BYTES))
            whole.flush()
            with suppress(FileExistsError):  # another process was first: its secret holds
                path.hardlink_to(whole.name)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{path} holds no secret of {SECRET_BYTES} bytes; remove it, and a new one is made")
    return secret


def fence(secret: bytes, inside: Iterable[str]) -> str:
    """12 letters that nobody who lacks the secret can foresee: HMAC-SHA256 (RFC 2104) of what goes inside.

    A document cannot hold the fence of a prompt that it is in, whatever fences its author has seen. The same
    texts get the same fence, so that a question asked again is the same prompt: its answer can be repeated
    at temperature 0, and it is found in the LLM server's prefix cache. Letters only: a small model that is
    asked for a number took a code with digits for one.
    """
    return (
        hmac.digest(secret, msgspec.json.encode(list(inside)), "sha256")
        .hex()[:FENCE_LETTERS]
        .translate(_LETTERS)
    )


def inert(text: str, fence: str) -> str:
    """The text as the LLM may see it: without the fence, control characters and tokens of chat templates."""
    seen = text.replace("\r\n", "\n").replace("\r", "\n").translate(_UNSEEN)
    if "<" in seen or "[" in seen:  # looked for first: most text has none, and this is a fiftieth of the cost
        seen = _TOKEN.sub(r"\g<0> ", seen)
    return seen.replace(fence, " ")


def one_line(text: str, fence: str) -> str:
    """Such a text on one line, for names and headings: they stand on lines that a template begins."""
    return " ".join(inert(text, fence).split())
