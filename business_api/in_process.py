"""Runs an ASGI app of this process as a server: the same boundary without a network."""

import asyncio
import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from business_api.arrivals import Arrivals, Arriving
from business_api.errors import UpstreamUnavailable

HANG_UP_SECONDS = 1.0
"""Time that an app in this process gets to notice that nobody reads."""


class _Call:
    """One request to the app: what it receives, and what becomes of what it sends."""

    def __init__(self, body: bytes) -> None:
        self._unread = [{"type": "http.request", "body": body, "more_body": False}]
        self._room = asyncio.Event()
        self._room.set()
        self.gone = asyncio.Event()
        self.arrivals = Arrivals(self._room.clear, self._room.set)
        self.started: asyncio.Future[tuple[int, Headers]] = asyncio.get_running_loop().create_future()

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        """Let the app answer. Whatever it raises, the server is what failed: it is of another project."""
        failure = UpstreamUnavailable("the LLM server broke off")
        try:
            await app(scope, self._receive, self._send)
        except Exception as exc:  # noqa: BLE001 - see above
            failure.__cause__ = exc
            self.arrivals.end(failure)
        finally:
            if not self.started.done():
                self.started.set_exception(failure)
            self.arrivals.end()

    async def _receive(self) -> dict[str, Any]:
        if self._unread:
            return self._unread.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start" and not self.started.done():  # the caller may have gone
            headers = [(name.lower(), value) for name, value in event.get("headers", ())]
            self.started.set_result((event["status"], Headers(raw=headers)))
        elif event["type"] == "http.response.body" and not self.gone.is_set():
            if body := event.get("body", b""):
                self.arrivals.add(body)
            await self._room.wait()

    def hang_up(self) -> None:
        """Nobody reads any more."""
        self.gone.set()
        self._room.set()
        self.arrivals.end(UpstreamUnavailable("hung up"))


class _MemoryReply(Arriving):
    """A response of the app (the `Reply` of transport.py)."""

    def __init__(self, call: _Call, task: "asyncio.Task[None]", status: int, headers: Headers) -> None:
        super().__init__(call.arrivals, status, headers)
        self._call, self._task = call, task

    def release(self) -> None:
        """There is no connection to keep."""
        self._arrivals.stop()

    async def aclose(self) -> None:
        """Tell the app that nobody reads; cut it off if it goes on."""
        self._call.hang_up()
        await asyncio.wait((self._task,), timeout=HANG_UP_SECONDS)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@dataclass(frozen=True)
class InProcess:
    """Transport to an ASGI app of this process."""

    app: Any
    prefix: str = "/v1"

    @classmethod
    def open(cls, url: str) -> "InProcess":
        """`asgi://module:factory`, where factory() returns the LLM server's ASGI app.

        Raises ValueError when there is none.
        """
        module, _, factory = url.removeprefix("asgi://").partition(":")
        try:
            made = getattr(importlib.import_module(module), factory)
        except (ImportError, AttributeError) as exc:
            raise ValueError(f"{url} names no LLM server of this installation: {exc}") from exc
        return cls(made())

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> _MemoryReply:
        """See Transport."""
        call = _Call(body)
        task = asyncio.create_task(call.run(self.app, _scope(method, self.prefix + path, headers)))
        try:
            status, answered = await call.started
        except BaseException:
            task.cancel()
            raise
        return _MemoryReply(call, task, status, answered)

    async def aclose(self) -> None:
        """Nothing is open."""


def _scope(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
    }
