"""How many tokens a text has, counted by the LLM server itself: a frame may hold several of them.

vLLM puts together what waits to be sent, or always does (`--stream-interval`); llama.cpp sends each token.
"""

import asyncio

import msgspec

from business_api.errors import Unavailable
from business_api.settings import LlmSettings
from business_api.transport import whole
from business_api.upstream.replica import Replica
from business_api.upstream.serving import headers

PATIENCE = 0.5
"""Seconds that a reader of the answer waits for the count at most."""


class _Counted(msgspec.Struct):
    tokens: list[int]


async def tokens_in(text: str, replica: Replica, settings: LlmSettings) -> int:
    """The tokens of the text for the model of this server; 0 if it does not say: it is not asked again."""
    if replica.root is None:
        return 0
    vllm = {"model": replica.model, "prompt": text, "add_special_tokens": False}
    asked = vllm if replica.maker == "vllm" else {"content": text, "add_special": False}
    sent = headers(settings) | {"Content-Type": "application/json"}
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await replica.root.send("POST", "/tokenize", msgspec.json.encode(asked), sent)
            said = await whole(reply)
        return len(msgspec.json.decode(said, type=_Counted).tokens)
    except (TimeoutError, Unavailable, msgspec.MsgspecError, UnicodeError):
        replica.counts_tokens = False
        return 0
