"""Everything that can go wrong, as a caller sees it.

ServiceError                        -> {"error": {"message", "type", "code", "param"}}
├── Refused                         the caller must change something
│   ├── InvalidRequest        400   names the field in `param`
│   ├── PromptTooLong         400   context_length_exceeded
│   ├── Unauthenticated       401
│   ├── NotFound              404   UnknownAssistant, UnknownExchange
│   ├── BodyTooLarge          413
│   ├── UnsupportedMediaType  415
│   └── RateLimited           429   + Retry-After
├── CallerGone                499   nobody is left to be told
└── Unavailable                     the caller may retry unchanged; + Retry-After
    ├── Overloaded            503
    ├── RetrievalUnavailable  503
    ├── UpstreamUnavailable   503
    └── UpstreamTimeout       504

Vendor exceptions die in the adapter that met them; their text never reaches a caller.
Anything that is not a ServiceError is a bug: 500, with the request id and nothing more.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ServiceError(Exception):
    """A failure that a caller is told about: `status` (HTTP), `code` and `kind` (OpenAI's `type`).

    `attempts` is the trail of attempts at the LLM that led to it.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str | None] = "internal_error"
    kind: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}
        self.param = param
        self.retry_after = retry_after
        self.request_id: str | None = None
        self.attempts: tuple[Any, ...] = ()

    def envelope(self) -> dict[str, dict[str, str | None]]:
        """The body that OpenAI's clients turn into their own error classes."""
        return {"error": {"message": self.message, "type": self.kind, "code": self.code, "param": self.param}}


class Refused(ServiceError):
    """The caller must change something before asking again."""

    status, code, kind = 400, "invalid_request", "invalid_request_error"


class InvalidRequest(Refused):
    """The request cannot be understood or honoured; `param` names the field."""


class PromptTooLong(Refused):
    """Question and history do not fit the model's context."""

    code = "context_length_exceeded"


class Unauthenticated(Refused):
    """No key, a wrong key, or a revoked one."""

    status, code, kind = 401, "invalid_api_key", "authentication_error"


class NotFound(Refused):
    """There is nothing at this address."""

    status, code = 404, "not_found"


class UnknownAssistant(NotFound):
    """The `model` of the request names no assistant."""

    code = "model_not_found"


class UnknownExchange(NotFound):
    """No exchange of this tenant has this id."""

    code = "exchange_not_found"


class BodyTooLarge(Refused):
    """The request body is over the limit."""

    status, code = 413, "request_too_large"


class UnsupportedMediaType(Refused):
    """The body is not JSON."""

    status, code = 415, "unsupported_media_type"


class RateLimited(Refused):
    """This key asked more often than it may, or for more tokens."""

    status, code, kind = 429, "rate_limit_exceeded", "rate_limit_error"


class CallerGone(ServiceError):
    """The caller hung up: nobody is left to be told. The status is nginx's for this."""

    status, code = 499, "caller_gone"


class Unavailable(ServiceError):
    """The caller may retry unchanged, after `retry_after` seconds."""

    status, code = 503, "unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = 1.0) -> None:
        super().__init__(message, param=param, retry_after=retry_after)


STOPS = "the service is stopping"


class Overloaded(Unavailable):
    """More came in than the LLM tier can take."""

    code = "overloaded"


class RetrievalUnavailable(Unavailable):
    """The documents cannot be searched; no answer is made without them."""

    code = "retrieval_unavailable"


class UpstreamUnavailable(Unavailable):
    """The LLM server cannot be reached, or broke off."""

    code = "upstream_unavailable"


class UpstreamTimeout(Unavailable):
    """The LLM server took longer than one of the deadlines."""

    status, code = 504, "upstream_timeout"
