"""Runs the app under uvicorn: one process, one loop, a clean stop."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from business_api.app import create_app
from business_api.settings import Settings
from business_api.wiring import wired

DRAIN_SECONDS = 20
"""Time that running answers get when the service stops."""


async def serve_forever(settings: Settings, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM. Raises ValueError, OSError when something cannot be opened."""
    async with wired(settings) as opened:
        config = uvicorn.Config(
            create_app(opened, settings),
            http="httptools",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        host, port = listening.getsockname()[:2]
        keys = "API keys are required" if settings.keys_required else "no API key is needed on loopback"
        print(f"business-api: http://{host}:{port}/ ({keys}), LLM at {settings.llm.url}", file=sys.stderr)
        await _Server(config).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn raises a signal again when it has stopped, which would end us before the sink is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals ask for a stop; a second one insists."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
