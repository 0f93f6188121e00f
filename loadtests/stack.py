"""The stack under test: the lean LLM server, and the business API in front of it with documents ingested."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.running import ROOT, Server, listening, status_of, waited_for

KNOWLEDGE = ("README.md", "docs")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def business_command() -> str:
    """`business-api` of the CPU tier's environment, else of the running one."""
    own = ROOT / ".venv/business/bin/business-api"
    return str(own if own.exists() else Path(sys.executable).with_name("business-api"))


@dataclass(frozen=True)
class Business:
    """How to run the business API before an LLM server, all it writes in `var`; `more` settings."""

    llm_url: str
    var: Path
    command: str = field(default_factory=business_command)
    more: Mapping[str, str] = field(default_factory=dict)

    def env(self, port: int) -> dict[str, str]:
        """The environment: the caller's own settings of the business API are left out."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BUSINESS_API_")}
        return kept | {
            "BUSINESS_API_LLM__URL": f"{self.llm_url}/v1",
            "BUSINESS_API_PORT": str(port),
            "BUSINESS_API_VAR": str(self.var),
            "BUSINESS_API_GUARD__REQUESTS_PER_MINUTE": "10000000",
            "BUSINESS_API_LLM__START_IN_FLIGHT": "1024",
            **self.more,
        }

    def lend(self, models: Path) -> bool:
        """Lend it the models; False when there are none."""
        self.var.mkdir(parents=True, exist_ok=True)
        if not models.exists():
            return False
        if not (self.var / "models").exists():
            (self.var / "models").symlink_to(models)
        return True

    def prepare(self, models: Path) -> bool:
        """Lend it the models and ingest this project's documentation; False when there are no models.

        Raises RuntimeError when a document could not be ingested.
        """
        if not self.lend(models):
            return False
        paths = [str(ROOT / name) for name in KNOWLEDGE if (ROOT / name).exists()]
        command = [self.command, "ingest", "--json", *paths]
        done = subprocess.run(command, env=self.env(0), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the documents were not ingested:\n{done.stderr.decode()[-2000:]}")
        return True

    @contextmanager
    def started(self) -> Iterator[tuple[Server, float]]:
        """The server, once /healthz is 200, and the seconds that took."""
        port = free_port()
        log = self.var / "business.log"
        with listening([self.command, "serve"], f"http://127.0.0.1:{port}", self.env(port), log) as server:
            seconds = waited_for(lambda: alive(server, log))
            yield server, seconds


def alive(server: Server, log: Path, path: str = "/healthz") -> bool:
    """Whether a GET of `path` is 200. Raises RuntimeError with the log's end if the process has ended."""
    if not server.process.is_running() or server.process.status() == "zombie":
        raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")
    return status_of(server.url, path) == 200


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
