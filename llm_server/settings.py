"""Every knob of the LLM tier: options of the command, else variables `LLM_SERVER_*`, else these defaults."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llm_server.errors import InvalidSetting

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "LLM_SERVER_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server. Each field is also a variable: `port` is `LLM_SERVER_PORT`."""

    host: str = "127.0.0.1"
    port: int = 8001
    model: str = "smollm2-135m-instruct"
    engine: str | None = None
    """`llama.cpp` or `vllm`; None takes the engine of the registry entry."""
    var: Path = ROOT / "var"
    """Folder whose `models` holds the local model files."""
    registry: Path = Path(__file__).with_name("models.toml")
    api_key: str | None = None
    """Key that callers must send as a bearer token."""
    threads: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    """Threads of the embedded engine."""
    vllm: str | None = None
    """The vLLM executable; None looks for .venv/vllm/bin/vllm, then on the PATH."""
    drain_seconds: int = 30
    """How long vLLM finishes running answers after SIGTERM."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def read_settings(environ: Mapping[str, str], **given: Any) -> Settings:
    """Settings from variables, replaced by what is `given` and not None. Raises InvalidSetting.

    Variables that name no setting are left alone: Kubernetes makes some for a service of our name.
    """
    names = Settings.__struct_fields__
    found: dict[str, Any] = {
        name: environ[PREFIX + name.upper()] for name in names if environ.get(PREFIX + name.upper())
    }
    found |= {name: value for name, value in given.items() if value is not None}
    try:
        settings = msgspec.convert(found, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as exc:
        what, _, name = str(exc).strip("`").partition(" - at `$.")
        raise InvalidSetting(f"{PREFIX}{name.upper()}: {what}{_hint(found)}") from exc
    if not 0 <= settings.port <= 65535:
        raise InvalidSetting(f"port {settings.port} is not between 0 and 65535")
    if settings.threads < 1:
        raise InvalidSetting(f"threads must be 1 or more, not {settings.threads}")
    return settings


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def _hint(found: Mapping[str, Any]) -> str:
    if str(found.get("port", "")).startswith("tcp://"):
        return (
            " (Kubernetes set LLM_SERVER_PORT for a service named llm-server: use enableServiceLinks: false)"
        )
    return ""
