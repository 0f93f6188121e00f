"""What else could stand where the business API stands: started beside it, before the same LLM server.

Both run in an environment of their own, `make .venv/peers/.ready`, with one worker and their defaults.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from loadtests.running import ROOT, Server, listening, waited_for
from loadtests.stack import alive, free_port
from loadtests.streaming import listen

BIN = ROOT / ".venv/peers/bin"
START_SECONDS = 180.0
WARM = 3
"""Answers before anything is measured: LiteLLM loads much of itself at the first one."""
QUESTION = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Are you there?"}]}

Peer = Callable[[str, Path], AbstractContextManager[Server]]
"""(LLM server's URL without path, folder to write in) -> a server that answers."""


def installed() -> bool:
    """Whether the peers' environment is there."""
    return (BIN / "litellm").exists()


@contextmanager
def plain_relay(llm_url: str, folder: Path) -> Iterator[Server]:
    """FastAPI and the openai SDK: `plain_relay`."""
    port = free_port()
    env = {"LLM_URL": f"{llm_url}/v1", "PORT": str(port), "PYTHONPATH": str(ROOT)}
    command = [str(BIN / "python"), "-m", "loadtests.plain_relay"]
    with _answering(command, port, env, folder / "plain_relay.log", "/openapi.json") as server:
        yield server


def litellm(llm_url: str, folder: Path) -> AbstractContextManager[Server]:
    """LiteLLM's proxy in Python, without a database, telemetry off."""
    return litellm_of([llm_url], folder)


@contextmanager
def litellm_of(llm_urls: Sequence[str], folder: Path) -> Iterator[Server]:
    """The same before several LLM servers."""
    port = free_port()
    routes = [
        {
            "model_name": "fast",
            "litellm_params": {"model": "openai/fast", "api_base": f"{url}/v1", "api_key": "unused"},
        }
        for url in llm_urls
    ]
    config = folder / "litellm.json"  # JSON is YAML
    config.write_bytes(msgspec.json.encode({"model_list": routes, "litellm_settings": {"telemetry": False}}))
    command = [str(BIN / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with _answering(command, port, env, folder / "litellm.log", "/health/liveliness") as server:
        yield server


PEERS: Mapping[str, Peer] = {"LiteLLM": litellm, "FastAPI + openai": plain_relay}


@contextmanager
def _answering(
    command: list[str], port: int, env: Mapping[str, str], log: Path, path: str
) -> Iterator[Server]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    with listening(command, f"http://127.0.0.1:{port}", {**kept, **env}, log) as server:
        waited_for(lambda: alive(server, log, path), START_SECONDS, step=0.1)
        for _ in range(WARM):
            listen(server.url, "/v1/chat/completions", QUESTION)
        yield server
