"""What is asked of the LLM tier: a prompt with its size, its deadline, and the trail of its attempts."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec

from business_api.exchange import Message, Prompt
from business_api.upstream.leaving import Leaving
from business_api.upstream.replica import Replica
from business_api.usage import Attempt


@dataclass(frozen=True)
class Asked:
    """A prompt on its way. `until` is the deadline of the whole answer, on the clock of `time.monotonic`.

    `leaving` ends its waits for servers that have not begun, when another tier takes it.
    `continues`: the last message is the beginning of the answer, `said_tokens` long, to be gone on with.
    `trail` grows with each attempt, those of a continuation included; `tried` are the replicas that have
    failed it.
    """

    prompt: Prompt
    sampling: Mapping[str, Any]
    request_id: str
    until: float
    prompt_tokens: float
    expected_tokens: float
    leaving: Leaving | None = None
    continues: bool = False
    said_tokens: int = 0
    trail: list[Attempt] = field(default_factory=list)
    tried: set[Replica] = field(default_factory=set)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.until - time.monotonic()

    @property
    def left_here(self) -> float:
        """Seconds until another tier takes it, or until the deadline."""
        return self.left if self.leaving is None else min(self.left, self.leaving.left)

    @property
    def taken(self) -> bool:
        """Whether another tier has taken it."""
        return self.leaving is not None and self.leaving.seat is not None

    @property
    def plain(self) -> bool:
        """Whether the answer is text and nothing else, which another replica can go on with."""
        format_ = self.sampling.get("response_format") or {"type": "text"}
        asks_more = any(self.sampling.get(name) for name in ("tools", "logprobs"))
        return format_.get("type") == "text" and not asks_more

    @cached_property
    def prefix(self) -> bytes:
        """Digest of the messages up to the first one of the user, which all turns of a conversation share."""
        digest = hashlib.blake2b(digest_size=16)
        for message in self.prompt.messages:
            digest.update(f"{message.role}\0{message.content}\0".encode())
            if message.role == "user":
                break
        return digest.digest()

    def continued(self, said: str, tokens: int) -> "Asked":
        """The same, to be gone on with after the answer's beginning `said`, of `tokens` tokens."""
        beginning = Message(role="assistant", content=said)
        prompt = msgspec.structs.replace(self.prompt, messages=(*self.prompt.messages, beginning))
        return replace(self, prompt=prompt, continues=True).counted(tokens)

    def counted(self, tokens: int) -> "Asked":
        """The same, of a beginning that has at least so many tokens: as many fewer are left to be said."""
        more = max(0, tokens - self.said_tokens)
        left = max(1, self.prompt.max_tokens - more)
        prompt = msgspec.structs.replace(self.prompt, max_tokens=left)
        said = self.said_tokens + more
        return replace(self, prompt=prompt, prompt_tokens=self.prompt_tokens + more, said_tokens=said)

    def body(self, model: str) -> bytes:
        """The request body for a server that calls the model so."""
        fields = {
            "model": model,
            "messages": self.prompt.messages,
            "max_tokens": self.prompt.max_tokens,
            **self.sampling,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.continues:
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        return msgspec.json.encode(fields)
