"""Runs the app under uvicorn: one process, one loop, a clean stop."""

import socket

import uvicorn

from business_api.app import create_app, wired
from business_api.settings import Settings

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
        await uvicorn.Server(config).serve(sockets=[listening])
