"""What can go wrong with the fake LLM server, told by method."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["none", "status", "die", "finish", "unfinished", "hang", "error", "malformed"]


@dataclass
class Fault:
    """What goes wrong. `after` counts deltas with content; `times` None means until `recover()`."""

    kind: Kind
    after: int = 0
    status: int = 500
    message: str = ""
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None

    @property
    def cuts(self) -> bool:
        """Whether only `after` deltas are sent."""
        return self.kind in ("die", "hang", "error", "malformed")


NO_FAULT = Fault("none")


class Faults:
    """Faults told so far. Each holds for the next `times` requests, or until `recover()`; oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def fail_with(
        self,
        status: int,
        message: str = "the fake was told to fail",
        *,
        headers: dict[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Answer with this status and vLLM's error envelope."""
        self._add(Fault("status", status=status, message=message, headers=headers or {}, times=times))

    def die_after(self, deltas: int, *, times: int | None = None) -> None:
        """Cut the connection after so many deltas: the chunked body ends without its last chunk."""
        self._add(Fault("die", after=deltas, times=times))

    def end_with(self, finish_reason: str, *, times: int | None = None) -> None:
        """End the answer with this finish_reason, such as `abort`, `length` or one nobody knows."""
        self._add(Fault("finish", finish_reason=finish_reason, times=times))

    def done_without_finish(self, *, times: int | None = None) -> None:
        """Send [DONE] although no finish_reason was sent."""
        self._add(Fault("unfinished", times=times))

    def hang_before_first(self, *, times: int | None = None) -> None:
        """Send the headers, then nothing for ever."""
        self._add(Fault("hang", after=0, times=times))

    def hang_after(self, deltas: int, *, times: int | None = None) -> None:
        """Send so many deltas, then nothing for ever."""
        self._add(Fault("hang", after=deltas, times=times))

    def error_frame_after(
        self, deltas: int, message: str = "EngineCore died", *, times: int | None = None
    ) -> None:
        """vLLM's way of failing in a stream: an error frame, then [DONE], under status 200."""
        self._add(Fault("error", after=deltas, message=message, times=times))

    def malformed_frame_after(self, deltas: int, *, times: int | None = None) -> None:
        """Send a frame whose JSON is cut off, then end as if all was well."""
        self._add(Fault("malformed", after=deltas, times=times))

    def recover(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def _add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def next_fault(self) -> Fault:
        if not self._faults:
            return NO_FAULT
        fault = self._faults[0]
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._faults.pop(0)
        return fault
