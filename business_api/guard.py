"""Says no before any work is done: who asks, from where, how often, and whether the question can be asked."""

import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from business_api.errors import InvalidRequest, PromptTooLong, RateLimited, Unauthenticated
from business_api.exchange import Message, Question
from business_api.keys import PREFIX, Key, Keys
from business_api.settings import Settings

__all__ = ["Allowance", "Caller", "Guard", "Key", "Keys"]

ROLES = ("system", "developer", "user", "assistant", "tool")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Caller:
    """Who asks. Without a key: the default tenant, and no key's id or name."""

    tenant: str
    key_id: str | None = None
    key_name: str | None = None


@dataclass(frozen=True)
class Allowance:
    """What a caller may still ask: `remaining` of `limit` requests, all of them in `reset_seconds`."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True)
class Guard:
    """The checks in front of everything. Both may be called from any thread and take microseconds."""

    keys: Keys
    keys_required: bool
    tenant: str
    allowed_hosts: frozenset[str]
    max_question_chars: int
    rate: RateLimitItem
    limiter: MovingWindowRateLimiter
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, settings: Settings, clock: Callable[[], float] = time.time) -> "Guard":
        """A guard with the keys in `settings.var`. Raises ValueError if they cannot be used."""
        return cls(
            keys=Keys.open(settings),
            keys_required=settings.keys_required,
            tenant=settings.tenant,
            allowed_hosts=frozenset(host.lower() for host in settings.guard.allowed_hosts),
            max_question_chars=settings.guard.max_question_chars,
            rate=RateLimitItemPerMinute(settings.guard.requests_per_minute),
            limiter=MovingWindowRateLimiter(_Windows(clock)),
            clock=clock,
        )

    def admit(self, authorization: str | None, host: str | None) -> Caller:
        """Let a request in, by its headers `Authorization` and `Host`, and count it.

        Raises Unauthenticated (no valid key though one is required, or a Tandem key that is wrong or
        revoked, required or not), InvalidRequest (while no key is required: a Host that is not ours, as of
        a page elsewhere whose name was rebound to this machine), RateLimited, Unavailable.
        """
        if not self.keys_required:
            self._check_host(host)
        caller = self._caller(authorization)
        if not self.limiter.hit(self.rate, _bucket(caller)):
            wait = max(self.limits_left(caller).reset_seconds, 0.001)
            raise RateLimited(
                f"more than {self.rate.amount} requests in a minute; try again in {wait:.1f} s",
                retry_after=wait,
            )
        return caller

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

    def limits_left(self, caller: Caller) -> Allowance:
        """What this caller may still ask, for headers; counts nothing."""
        reset, remaining = self.limiter.get_window_stats(self.rate, _bucket(caller))
        return Allowance(self.rate.amount, max(remaining, 0), max(reset - self.clock(), 0.0))

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
        return Caller(key.tenant, key.id, key.name)

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


def _bucket(caller: Caller) -> str:
    return caller.key_id or _ANONYMOUS


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


class _Windows(MemoryStorage):
    """Moving windows in memory. MemoryStorage itself starts a thread per request to clean up: 0.5 ms each."""

    STORAGE_SCHEME = ["tandem-memory"]  # noqa: RUF012 - a class attribute of the library

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._hits: defaultdict[str, deque[float]] = defaultdict(deque)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` more in the last `expiry` seconds, unless they would be more than `limit`."""
        with self._lock:
            hits = self._recent(key, expiry)
            if len(hits) + amount > limit:
                return False
            hits.extend([self._clock()] * amount)
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """(time of the oldest that still counts, or now; how many count)."""
        with self._lock:
            hits = self._recent(key, expiry)
            return (hits[0] if hits else self._clock()), len(hits)

    def _recent(self, key: str, expiry: int) -> deque[float]:
        hits, since = self._hits[key], self._clock() - expiry
        while hits and hits[0] <= since:
            hits.popleft()
        return hits
