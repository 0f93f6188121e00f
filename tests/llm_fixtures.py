"""Real LLM servers for tests, started through the command line that users have: embedded llama.cpp, vLLM."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODEL = "smollm2-135m-instruct"
READY_SECONDS = {"llama.cpp": 120.0, "vllm": 600.0}
STOP_SECONDS = 40.0
"""More than vLLM's drain."""


@pytest.fixture(scope="session")
def embedded_llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL (ending in /v1) of the embedded server: 4 slots of 2048 tokens."""
    if not (ROOT / f"var/models/{MODEL}/model-q8_0.gguf").is_file():
        pytest.fail("the model files are missing: `make models`", pytrace=False)
    with running_llm("llama.cpp", tmp_path_factory.mktemp("embedded")) as url:
        yield url


@contextmanager
def running_llm(engine: str, folder: Path, model: str = MODEL) -> Iterator[str]:
    """An LLM server on a free port, stopped by SIGTERM. Its log is in `folder` and shown when it fails."""
    port, log = free_port(), folder / "server.log"
    process = started_llm(engine, port, log, model)
    try:
        wait_until_ready(process, port, READY_SECONDS[engine], log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(process)


def started_llm(
    engine: str, port: int, log: Path, model: str = MODEL, **variables: str
) -> "subprocess.Popen[bytes]":
    """`llm-server serve` as leader of a session of its own; its output is added to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command("serve", model, "--engine", engine, "--port", str(port)),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**variables),
            start_new_session=True,
        )


def command(*arguments: str) -> list[str]:
    """The command line of `llm-server`, in the LLM tier's own environment where there is one."""
    own = ROOT / ".venv/llm/bin/llm-server"
    program = own if own.is_file() else ROOT / ".venv/dev/bin/llm-server"
    return [str(program), *arguments]


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of the LLM tier, plus `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_SERVER_")}
    return kept | variables


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


def stop(process: "subprocess.Popen[bytes]") -> int:
    """Ask the process to end, end its whole session if it does not, and return its exit status."""
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int, patience: float, log: Path) -> None:
    """Fails the test, with the end of the log, when it does not become healthy in so many seconds."""
    health = f"http://127.0.0.1:{port}/health"
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
    pytest.fail(
        f"the LLM server did not become healthy in {patience:.0f} s; its log ends:\n{tail}", pytrace=False
    )
