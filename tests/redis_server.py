"""A real Redis server of the tests' own, that can be frozen, killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.llm_fixtures import free_port

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """A server at `url`, empty when it starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = ("--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder))
        assert PROGRAM is not None
        self._process = subprocess.Popen([PROGRAM, *options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("redis-server did not come up")
            time.sleep(0.02)

    def freeze(self) -> None:
        """Connections stay open and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def drop_connections(self) -> None:
        """As a server does with those that were idle for too long."""
        assert self._said(b"CLIENT KILL TYPE normal SKIPME yes").startswith(b":")

    def clear(self) -> None:
        """Forget everything."""
        assert self._said(b"FLUSHALL") == b"+OK\r\n"

    def _answers(self) -> bool:
        try:
            return self._said(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def _said(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(16)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A server that is gone at the end. Skips the test where there is no Redis, unless one is required."""
    if PROGRAM is None:
        if os.environ.get("TANDEM_REQUIRE_REDIS") == "1":
            pytest.fail("redis-server is not installed: bash tests/install_system.sh redis")
        pytest.skip("redis-server is not installed")
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.kill()
