"""From a registry entry to the command and the environment that start vLLM: pure functions, then one exec."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from llm_server.errors import EngineMissing
from llm_server.registry import Model
from llm_server.settings import ROOT, Settings

QUIET_PATHS = "/health,/metrics,/ping"
KEEP_ALIVE_SECONDS = 75
"""Longer than our callers' pools keep idle connections: the client must be the side that closes."""
CPU_KV_CACHE_BYTES = 256 * 1024 * 1024
"""Fixed, because what vLLM reserves by default on a CPU is counted in whole GiB."""


def vllm_command(model: Model, settings: Settings, vllm: str = "vllm") -> list[str]:
    """The command line that serves `model`. The API key is not in it: processes can read each other's."""
    source = str(model.folder(settings.var)) if model.local else model.source
    command = [vllm, "serve", source]
    command += ["--host", settings.host, "--port", str(settings.port)]
    command += ["--served-model-name", model.asked_for]
    command += _weights(model) + _capacity(model) + _device(model) + _features(model)
    return [*command, "--shutdown-timeout", str(settings.drain_seconds)]


def _weights(model: Model) -> list[str]:
    """Which weights, and how they are read: safetensors only, since other formats can carry code."""
    flags = ["--load-format", "safetensors", "--dtype", model.dtype]
    if model.revision:
        flags += ["--revision", model.revision, "--tokenizer-revision", model.revision]
    if model.quantization:
        flags += ["--quantization", model.quantization]
    return flags


def _capacity(model: Model) -> list[str]:
    """How much at once. The queue belongs to the business tier: vLLM's own is short, then it answers 503."""
    queued = model.max_num_seqs + max(2, model.max_num_seqs // 8)
    return [
        *("--max-model-len", str(model.max_model_len)),
        *("--max-num-seqs", str(model.max_num_seqs)),
        *("--max-num-queued-reqs", str(queued)),
        "--enable-prefix-caching",
    ]


def _device(model: Model) -> list[str]:
    if model.device == "cpu":
        return ["--enforce-eager", "--kv-cache-memory-bytes", str(CPU_KV_CACHE_BYTES)]
    memory = str(model.gpu_memory_utilization)
    return ["--gpu-memory-utilization", memory, "--tensor-parallel-size", str(model.gpus)]


def _features(model: Model) -> list[str]:
    flags = [
        "--enable-request-id-headers",
        "--enable-prompt-tokens-details",
        "--enable-force-include-usage",
        "--disable-fastapi-docs",
        *("--disable-access-log-for-endpoints", QUIET_PATHS),
    ]
    if model.tool_call_parser:
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", model.tool_call_parser]
    if model.reasoning_parser:
        flags += ["--reasoning-parser", model.reasoning_parser]
    if model.template_arguments:
        flags += ["--default-chat-template-kwargs", json.dumps(dict(model.template_arguments))]
    return flags


def vllm_environment(model: Model, settings: Settings) -> dict[str, str]:
    """Variables that vLLM is started with, beside ours: no reports to its makers, no hub for local files."""
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_SECONDS),
    }
    if model.local:
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if settings.api_key:
        variables["VLLM_API_KEY"] = settings.api_key
    return variables


def vllm_executable(settings: Settings, root: Path = ROOT) -> str:
    """Path of the vLLM command. Raises EngineMissing."""
    if settings.vllm:
        found = shutil.which(settings.vllm)
        advice = "LLM_SERVER_VLLM names no executable"
    else:
        ours = root / ".venv/vllm/bin/vllm"
        found = str(ours) if ours.is_file() else shutil.which("vllm")
        advice = "get the CPU build with `make .venv/vllm/.ready`, or set LLM_SERVER_VLLM to a vllm of yours"
    if found is None:
        raise EngineMissing(f"vLLM is not installed: {advice}")
    return found


def exec_vllm(model: Model, settings: Settings, environ: Mapping[str, str]) -> None:
    """Become vLLM; signals and the exit status are then its own. Raises EngineMissing."""
    command = vllm_command(model, settings, vllm_executable(settings))
    # Ours stay behind: the key is among them.
    kept = {name: value for name, value in environ.items() if not name.startswith("LLM_SERVER_")}
    binaries = str(Path(command[0]).parent)
    kept["PATH"] = os.pathsep.join([binaries, kept.get("PATH", os.defpath)])
    sys.stdout.flush()
    os.execvpe(command[0], command, kept | vllm_environment(model, settings))  # noqa: S606
