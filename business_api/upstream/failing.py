"""What becomes of an attempt that fails: whose fault it is, and whether another attempt may be made."""

import msgspec

from business_api.errors import (
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    ServiceError,
    UpstreamUnavailable,
)
from business_api.transport import Reply

GONE = float("inf")
"""Strikes that put a replica out at once."""
BROKE_OFF, UNREACHABLE, BUSY = 1.0, 1.5, 0.25
"""Strikes for a failure: two requests that cannot reach a replica put it out, twelve that it refuses."""
DRAINING = ("cannot schedule new futures after shutdown", "shutting down", "Shutting down")
"""What vLLM says, with 500 or 503, between SIGTERM and its end."""
OF_THE_CALLER = (400, 422)
"""What every server would answer to this request."""
OF_THE_OPERATOR = (301, 302, 303, 307, 308, 401, 405, 407)
"""What no request of a caller can bring about; a 403 or 404 may be for what this one asks."""
TOO_LONG = ("context length", "context size", "maximum context")
MOST_SAID = 64 * 1024
"""Bytes read of a refusal."""


class Failed(Exception):
    """An attempt that failed with `error`. `again`: another one may succeed; with `elsewhere`, only there."""

    def __init__(
        self,
        outcome: str,
        error: ServiceError,
        *,
        again: bool,
        elsewhere: bool = False,
        strikes: float = 0.0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(outcome)
        self.outcome, self.error, self.again, self.elsewhere = outcome, error, again, elsewhere
        self.strikes, self.retry_after = strikes, retry_after


async def refusal(reply: Reply) -> Failed:
    """What a status that is not 200 means; what was said of the caller's fields is passed on."""
    said = _error_text(await _beginning(reply))
    status, outcome = reply.status, f"status_{reply.status}"
    if status in (500, 503) and any(words in said for words in DRAINING):
        error = UpstreamUnavailable("the LLM server is shutting down")
        return Failed("draining", error, again=True, strikes=GONE)
    if status in (429, 503, 529):
        wait = _seconds(reply.headers.get("Retry-After", ""))
        busy = Overloaded("the LLM server is busy", retry_after=2.0 if wait is None else min(60.0, wait))
        return Failed(outcome, busy, again=True, strikes=BUSY, retry_after=wait)
    if status >= 500:
        failed = UpstreamUnavailable("the LLM server failed")
        return Failed(outcome, failed, again=True, strikes=BROKE_OFF)
    if status in OF_THE_CALLER or (status == 413 and any(words in said for words in TOO_LONG)):
        return Failed(outcome, _refused(said), again=False)
    strikes = UNREACHABLE if status in OF_THE_OPERATOR else BUSY
    return Failed(outcome, _unfit(status), again=status != 413, elsewhere=True, strikes=strikes)


def _refused(said: str) -> ServiceError:
    if any(words in said for words in TOO_LONG):
        return PromptTooLong("the messages do not fit the model's context", param="messages")
    return InvalidRequest(f"the LLM server refused the request: {said[:300]}")


def _unfit(status: int) -> ServiceError:
    """What the operator must mend, or what this server does not take of this caller: another one may."""
    if status in (401, 403):
        return UpstreamUnavailable("the LLM server refused our credentials", retry_after=30)
    if status == 404:
        return UpstreamUnavailable("the LLM server does not serve this model")
    return UpstreamUnavailable("the LLM server failed")


async def _beginning(reply: Reply) -> bytes:
    read = b""
    async for piece in reply:
        read += piece
        if len(read) > MOST_SAID:
            break
    return read


def _seconds(header: str) -> float | None:
    return float(header) if header.isascii() and header.isdigit() and len(header) < 10 else None


def _error_text(raw: bytes) -> str:
    try:
        found = msgspec.json.decode(raw)
        found = found.get("error", found)
        return str(found.get("message", "")) if isinstance(found, dict) else str(found)
    except (msgspec.DecodeError, UnicodeError, RecursionError, AttributeError):
        return ""
