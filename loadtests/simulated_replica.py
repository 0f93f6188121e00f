"""One simulated LLM server: vLLM's routes over real sockets, its refusals, its way of shutting down."""

import asyncio
import os
import time
import uuid
from collections import deque
from collections.abc import Callable

import msgspec

from loadtests.simulated_batching import Preset
from loadtests.simulated_faults import Faults, Order
from loadtests.simulated_http import Connection, Heard, Peers
from loadtests.simulated_metrics import Counts
from loadtests.simulated_requests import Refused, accepted, answering, decoded, failing, tokenized
from loadtests.simulated_stepping import Stepping
from loadtests.simulated_wire import BUSY, document

SWEEP_SECONDS = 0.25
REMEMBERED = 256
DRAINING = "cannot schedule new futures after shutdown"


class Replica:
    """A server. `url` has no path; `counts` and `heard` (the latest requests) are for those who look on.

    `max_num_queued` is vLLM's --max-num-queued-reqs, `keep_alive` the seconds after which idle connections
    are closed. `clock` in seconds.
    """

    def __init__(
        self,
        preset: Preset,
        *,
        max_num_queued: int | None = None,
        keep_alive: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.preset = preset
        self.faults = Faults()
        self.heard: deque[Heard] = deque(maxlen=REMEMBERED)
        self.stopped = asyncio.Event()
        self.port = 0
        self._max_num_queued = max_num_queued
        self._keep_alive = keep_alive
        self._clock = clock
        self._stepping = Stepping(preset, clock)
        self._peers = Peers(clock)
        self._draining = False
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens; the port stays the same after `die` and `start`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        return self._stepping.meters.counts

    @property
    def unfinished(self) -> int:
        """Answers that run or wait."""
        return len(self._stepping.unfinished)

    async def start(self, port: int = 0) -> None:
        """Listen on `port`, else on the port of before, else on a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self.stopped.clear()
        self._draining = False
        self._server = await loop.create_server(
            lambda: Connection(self._peers, self._answer), "127.0.0.1", port or self.port, backlog=8192
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweep()

    async def aclose(self) -> None:
        """Cut everything, and wait until it is cut."""
        self._stepping.stop()
        self.die()
        await self._peers.all_closed()

    def die(self) -> None:
        """Close the port and cut every connection, as if the process were killed."""
        self._draining = False
        self._close_port()
        for connection in list(self._peers.open):
            connection.abort()

    def drain(self, seconds: float) -> None:
        """vLLM at SIGTERM with --shutdown-timeout `seconds`; with 0, its default, all answers end at once."""
        self._draining = True
        self._drain_until = self._clock() + seconds
        self._watch_drain()

    def _watch_drain(self) -> None:
        if not self._draining:
            return
        if self.unfinished and self._clock() < self._drain_until:
            asyncio.get_running_loop().call_later(0.01, self._watch_drain)
            return
        self._stepping.fail_all("The server is shutting down.")
        self._close_port()
        for connection in list(self._peers.open):
            connection.close()

    def _close_port(self) -> None:
        if self._server is not None:
            self._server.close()
            self._sweeper.cancel()
            self._server = None
        self.stopped.set()

    def _sweep(self) -> None:
        self._peers.close_idle(self._keep_alive)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def obey(self, order: Order) -> None:
        """Do what is ordered, now."""
        if order.clear:
            self.faults.clear()
        if order.fault is not None:
            self.faults.tell(order.fault)
        stepping = self._stepping
        stepping.slow = stepping.slow if order.slow is None else order.slow
        stepping.frozen = stepping.frozen if order.frozen is None else order.frozen
        stepping.wake()
        if order.do == "die":
            self.die()
        elif order.do in ("drain", "abort_all"):
            self.drain(order.seconds if order.do == "drain" else 0.0)
        elif order.do is not None:
            for connection in self._peers.idle():
                connection.go_stale(half_close=order.do == "half_close")

    def _answer(self, connection: Connection, heard: Heard) -> None:
        try:
            if (heard.method, heard.path) == ("POST", "/v1/chat/completions"):
                self._chat(connection, heard)
            elif (heard.method, heard.path) == ("POST", "/tokenize"):
                connection.send(tokenized(heard.body))
            elif (heard.method, heard.path) == ("POST", "/control"):
                self._peers.spare(connection)
                heard.keep_alive = False
                self.obey(decoded(heard.body, Order))
                connection.send(self._page("/control"))
            else:
                connection.send(self._page(heard.path))
        except Refused as refused:
            self.counts.refused += 1
            connection.send(refused.response)

    def _page(self, path: str) -> bytes:
        if path == "/health":
            return document(200, b"")
        if path == "/metrics":
            text = self._stepping.meters.text(self._stepping.batching)
            return document(200, text, kind="text/plain; version=0.0.4")
        if path == "/v1/models":
            length = self.preset.max_model_len
            known = {"id": self.preset.model, "object": "model", "owned_by": "vllm", "max_model_len": length}
            return document(200, msgspec.json.encode({"object": "list", "data": [known]}))
        if path == "/control":
            told = {"pid": os.getpid(), "unfinished": self.unfinished, "counts": self.counts}
            return document(200, msgspec.json.encode(told))
        raise Refused(404, "Not Found")

    def _chat(self, connection: Connection, heard: Heard) -> None:
        self.counts.requests += 1
        self.heard.append(heard)
        fault = self.faults.draw()
        if fault is not None and fault.kind == "silent":
            return
        if fault is not None and fault.kind == "status":
            self.counts.refused += 1
            connection.send(failing(fault))
            return
        if self._draining:
            raise Refused(500, DRAINING)
        asked = accepted(heard.body, self.preset)
        if self._max_num_queued is not None and self.unfinished >= self._max_num_queued:
            self.counts.rejected += 1
            raise Refused(503, BUSY)
        request_id = heard.headers.get("x-request-id") or uuid.uuid4().hex
        self._stepping.submit(
            answering(asked, request_id, self.preset, connection, fault=fault, now=self._clock())
        )
