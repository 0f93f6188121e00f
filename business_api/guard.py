"""Says no before any work is done: who asks, from where, how often, and whether the question can be asked."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from business_api.assistants import Assistant
from business_api.errors import InvalidRequest, PromptTooLong, Unauthenticated
from business_api.exchange import Exchange, Message, Question, Record
from business_api.keys import NO_LIMITS_OF_ITS_OWN, PREFIX, Key, Keys, Limits
from business_api.limits_per_key import LimitsPerKey
from business_api.settings import Settings
from business_api.shared_windows import open_windows
from business_api.spending import Spending
from business_api.windows import Windows

__all__ = ["Caller", "Guard", "Key", "Keys"]

ROLES = ("system", "developer", "user", "assistant", "tool")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::[0-9]{1,5})?", re.IGNORECASE)


class Caller(msgspec.Struct, frozen=True):
    """Who asks. Without a key: the default tenant, and no key's id or name."""

    tenant: str
    key_id: str | None = None
    key_name: str | None = None
    limits: Limits = NO_LIMITS_OF_ITS_OWN


@dataclass(frozen=True)
class Guard:
    """The checks in front of everything. They take microseconds, and a round trip where limits are shared."""

    keys: Keys
    keys_required: bool
    tenant: str
    allowed_hosts: frozenset[str]
    max_question_chars: int
    windows: Windows
    spending: Spending
    limits: LimitsPerKey

    @classmethod
    def open(cls, settings: Settings, clock: Callable[[], float] = time.monotonic) -> "Guard":
        """A guard with the keys in `settings.var`. Raises ValueError if they or limits_url are unusable."""
        chosen = settings.guard
        windows = open_windows(chosen, clock)
        default = Limits(
            requests_per_minute=chosen.requests_per_minute,
            tokens_per_minute=chosen.tokens_per_minute,
            tokens_per_day=chosen.tokens_per_day,
        )
        return cls(
            keys=Keys.open(settings),
            keys_required=settings.keys_required,
            tenant=settings.tenant,
            allowed_hosts=frozenset(host.lower() for host in chosen.allowed_hosts),
            max_question_chars=chosen.max_question_chars,
            windows=windows,
            spending=Spending(settings.llm.context_tokens, settings.llm.bytes_per_token),
            limits=LimitsPerKey(windows, default, 1 if chosen.limits_url else chosen.limits_shared_by),
        )

    async def admit(self, authorization: str | None, host: str | None) -> Caller:
        """Let a request in, by its headers `Authorization` and `Host`, and count it.

        Raises Unauthenticated (no valid key though one is required, or a Tandem key that is wrong or
        revoked, required or not), InvalidRequest (while no key is required: a Host that is not ours, as of
        a page elsewhere whose name was rebound to this machine), RateLimited, Unavailable.
        """
        if not self.keys_required:
            self._check_host(host)
        caller = self._caller(authorization)
        await self.limits.count(caller.key_id, caller.limits)
        return caller

    async def reserve(self, question: Question, assistant: Assistant) -> None:
        """Reserve the tokens that this question may take, until its exchange is settled.

        Raises RateLimited, Unavailable, and InvalidRequest if its key can never have so many.
        """
        if self.limits.limits_tokens(question.key):
            tokens = self.spending.estimate(question, assistant)
            await self.limits.reserve(question.id, question.key, tokens)

    def settling(self, record: Record) -> Record:
        """`record`, correcting what was reserved to what the exchange spent."""

        def settle_and_record(exchange: Exchange) -> None:
            if exchange.id in self.limits.reserved:
                self.limits.settle(exchange.id, self.spending.spent(exchange))
            record(exchange)

        return settle_and_record

    def limit_headers(self, caller: Caller) -> dict[str, str]:
        """What this caller had left when it last spent, as OpenAI's headers."""
        return self.limits.headers(caller.key_id)

    def uncounted(self) -> Mapping[str, int]:
        """What Redis did not count: by what was done instead, and corrections that it never saw."""
        return {**self.windows.apart, "unsettled": self.windows.lost}

    def check(self, question: Question) -> None:
        """Refuse what cannot be asked. Raises InvalidRequest with the field in `param`, PromptTooLong."""
        messages = question.messages
        if not messages:
            raise InvalidRequest("messages must not be empty", param="messages")
        for number, message in enumerate(messages):
            self._check_message(f"messages[{number}]", message)
        if messages[-1].role not in ("user", "tool"):
            raise InvalidRequest("the last message must be of the user or a tool", param="messages")
        if not question.text.strip():
            raise InvalidRequest("messages hold no question of the user", param="messages")
        _check_tool_calls(messages)

    async def aclose(self) -> None:
        """Finish what is being settled; close the file of keys."""
        await self.windows.aclose()
        self.close()

    def close(self) -> None:
        """Close the file of keys."""
        self.keys.close()

    def _check_host(self, host: str | None) -> None:
        name = _HOST.fullmatch(host or "")
        if name is None or name[1].lower() not in self.allowed_hosts:
            raise InvalidRequest(
                f"this service does not answer for the host {(host or '')[:100]!r}; "
                "BUSINESS_API_GUARD__ALLOWED_HOSTS lists those it does",
                param="host",
            )

    def _caller(self, authorization: str | None) -> Caller:
        scheme, _, secret = (authorization or "").strip().partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else ""
        # Clients that cannot go without a key send a placeholder where none is required: not a wrong key.
        if not self.keys_required and not secret.startswith(PREFIX):
            return Caller(self.tenant)
        if not secret:
            raise Unauthenticated("send an API key: Authorization: Bearer tdm_...")
        key = self.keys.find(secret)
        if key is None:
            raise Unauthenticated("this API key is wrong or was revoked")
        return Caller(key.tenant, key.id, key.name, key.limits)

    def _check_message(self, field: str, message: Message) -> None:
        if message.role not in ROLES:
            raise InvalidRequest(f"role must be one of {', '.join(ROLES)}", param=f"{field}.role")
        content = message.content or ""
        if len(content) > self.max_question_chars:
            raise PromptTooLong(
                f"{field} has {len(content)} characters; at most {self.max_question_chars} are allowed",
                param="messages",
            )
        if found := _CONTROL.search(content):
            raise InvalidRequest(
                f"control character U+{ord(found[0]):04X} at {found.start()}", param=f"{field}.content"
            )


def _check_tool_calls(messages: Sequence[Message]) -> None:
    """Every call of the assistant is answered right after it, and every answer has its call."""
    called_in, open_calls = "", set[str]()
    for number, message in enumerate(messages):
        field = f"messages[{number}]"
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise InvalidRequest("this answers no open tool call", param=f"{field}.tool_call_id")
            open_calls.remove(message.tool_call_id)
            continue
        _check_answered(open_calls, called_in)
        if message.tool_calls:
            called_in, open_calls = f"{field}.tool_calls", _calls(field, message)
    _check_answered(open_calls, called_in)


def _check_answered(open_calls: set[str], called_in: str) -> None:
    if open_calls:
        raise InvalidRequest(
            f"no tool message answers the call {min(open_calls)[:100]!r}; answer it before going on",
            param=called_in,
        )


def _calls(field: str, message: Message) -> set[str]:
    if message.role != "assistant":
        raise InvalidRequest("only the assistant calls tools", param=f"{field}.tool_calls")
    found = set[str]()
    for number, call in enumerate(message.tool_calls or ()):
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id or call_id in found:
            raise InvalidRequest(
                "a tool call needs an id of its own", param=f"{field}.tool_calls[{number}].id"
            )
        found.add(call_id)
    return found
