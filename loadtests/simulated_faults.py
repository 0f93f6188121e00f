"""What can go wrong with the simulated LLM server, and how it is told: `POST /control` with an `Order`."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

Kind = Literal["status", "silent", "hang", "reset", "cut", "abort", "error", "malformed"]
Act = Literal["die", "drain", "abort_all", "stale", "half_close"]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with single requests: the next `times` of them (None: until cleared), or a `share`.

    | kind | |
    |---|---|
    | status | answers `status`, with Retry-After if `retry_after` is set |
    | silent | accepts the request and never answers |
    | hang | stops after `after` frames with text, the connection stays open |
    | reset, cut | ends the connection after `after` frames, by RST or by FIN |
    | abort | ends the answer after `after` frames with finish_reason `abort`, usage and [DONE] |
    | error | an error frame after `after` frames, then [DONE]; not streamed: status 500 |
    | malformed | a frame whose JSON is cut off, then ends as if all was well |
    """

    kind: Kind
    after: int = 0
    status: int = 503
    retry_after: int | None = None
    times: int | None = None
    share: float = 1.0


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do now. `clear` forgets all faults and is done first; `slow` multiplies the time of a step;
    `frozen` stops the model while /health stays 200. `do`, with `seconds` for a drain:

    | do | |
    |---|---|
    | die | closes the port and every connection |
    | drain | SIGTERM with --shutdown-timeout: running answers finish within `seconds`, new ones get 500 |
    | abort_all | SIGTERM by default: running answers end with an error frame and [DONE], the port closes |
    | stale | idle connections are closed when the next request comes in on them |
    | half_close | idle connections get FIN now, and no answer any more |
    """

    fault: Fault | None = None
    clear: bool = False
    slow: float | None = None
    frozen: bool | None = None
    do: Act | None = None
    seconds: float = 0.0


@dataclass
class _Told:
    fault: Fault
    left: int | None
    due: float = 0.0


@dataclass
class Faults:
    """Faults told so far; the oldest that applies holds. A share is dealt out evenly, not by chance."""

    _told: list[_Told] = field(default_factory=list)

    def tell(self, fault: Fault) -> None:
        """From now on."""
        self._told.append(_Told(fault, fault.times))

    def clear(self) -> None:
        """Forget all."""
        self._told.clear()

    def draw(self) -> Fault | None:
        """What goes wrong with the request at hand."""
        for told in self._told:
            told.due += told.fault.share
            if told.due < 1 - 1e-9:
                continue
            told.due -= 1
            if told.left is not None:
                told.left -= 1
                if told.left <= 0:
                    self._told.remove(told)
            return told.fault
        return None
