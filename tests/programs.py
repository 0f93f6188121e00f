"""The business API as people run it: the program itself, in a process of its own, over a real socket."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from tests.llm_fixtures import free_port

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "var/models/all-minilm-l6-v2"
PROGRAM = str(Path(sys.executable).parent / "business-api")


def settings(var: Path, **more: str) -> dict[str, str]:
    """An environment whose settings are these alone; the embedding model is the prepared one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUSINESS_API_")}
    own = {"BUSINESS_API_VAR": str(var), "BUSINESS_API_EMBEDDING__FOLDER": str(MODELS), "NO_COLOR": "1"}
    return kept | own | more


def run(*arguments: str, var: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run `business-api ARGUMENTS` to its end."""
    return subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=settings(var, **more),
    )


@dataclass
class Program:
    """A running `business-api serve`."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON."""
        return self._open(urllib.request.Request(self.url + path))[:2]

    def text(self, path: str) -> str:
        """The body of a 200."""
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            said: bytes = reply.read()
            return said.decode()

    def chat(self, message: str, **fields: Any) -> tuple[int, Any, Message]:
        """Status, JSON and headers of POST /chat."""
        sent = json.dumps({"message": message, **fields}).encode()
        return self._open(
            urllib.request.Request(f"{self.url}/chat", sent, {"Content-Type": "application/json"})
        )

    def _open(self, request: urllib.request.Request) -> tuple[int, Any, Message]:
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return reply.status, json.load(reply), reply.headers
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc), exc.headers

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving_program(var: Path, llm_url: str, **more: str) -> Iterator[Program]:
    """Start it and wait until it is alive; killed at the end if it still runs."""
    port = free_port()
    log = var / "service.log"
    var.mkdir(exist_ok=True)
    environment = settings(var, BUSINESS_API_LLM__URL=llm_url, **more)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--port", str(port)], stdout=output, stderr=output, env=environment
        )
    service = Program(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(service)
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def _wait(service: Program) -> None:
    deadline = time.monotonic() + 120
    while service.process.poll() is None and time.monotonic() < deadline:
        try:
            if service.get("/healthz")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"business-api serve did not come up:\n{service.log.read_text(errors='replace')}")
