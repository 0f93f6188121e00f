"""Launching: settings and a registry entry become a command, without a GPU in sight."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_server.cli import commands
from llm_server.errors import EngineMissing, InvalidSetting
from llm_server.launch import KEEP_ALIVE_SECONDS, vllm_command, vllm_environment, vllm_executable
from llm_server.registry import Model, Registry
from llm_server.settings import Settings, read_settings
from tests.llm_fixtures import command, environment, free_port

SETTINGS = Settings()


def model(name: str) -> Model:
    return Registry.load(SETTINGS.registry).find(name)


def flags(name: str, settings: Settings = SETTINGS) -> dict[str, str]:
    """The flags of a model's command; a flag without a value maps to ''."""
    words = vllm_command(model(name), settings)[3:]
    values = [*words[1:], "--"]
    return {
        word: "" if value.startswith("--") else value
        for word, value in zip(words, values, strict=True)
        if word.startswith("--")
    }


def test_a_hub_model_is_served_at_the_approved_commit_only() -> None:
    command = vllm_command(model("qwen3-8b"), SETTINGS)
    assert command[:3] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    found = flags("qwen3-8b")
    assert found["--revision"] == found["--tokenizer-revision"] == model("qwen3-8b").revision
    assert found["--load-format"] == "safetensors"
    assert "--trust-remote-code" not in found


def test_quantised_and_parallel_entries_say_so_to_vllm() -> None:
    assert flags("qwen3-8b-awq")["--quantization"] == "awq_marlin"
    assert flags("qwen3-30b-a3b-fp8")["--quantization"] == "fp8"
    assert "--quantization" not in flags("qwen3-30b-a3b")
    assert flags("qwen3-30b-a3b")["--tensor-parallel-size"] == "2"


def test_tools_and_thinking_follow_the_entry() -> None:
    found = flags("qwen3-8b")
    assert (found["--tool-call-parser"], found["--reasoning-parser"]) == ("hermes", "qwen3")
    assert json.loads(found["--default-chat-template-kwargs"]) == {"enable_thinking": False}
    assert "--enable-auto-tool-choice" not in flags("smollm2-135m-instruct-vllm")


@pytest.mark.parametrize("name", [m.name for m in Registry.load(SETTINGS.registry).models])
def test_vllm_queues_little_drains_and_echoes_request_ids(name: str) -> None:
    found = flags(name)
    assert (
        int(found["--max-num-seqs"]) < int(found["--max-num-queued-reqs"]) <= 1.5 * model(name).max_num_seqs
    )
    assert found["--shutdown-timeout"] == "30"
    assert {"--enable-request-id-headers", "--enable-prompt-tokens-details"} <= found.keys()
    assert {"--enable-force-include-usage", "--enable-prefix-caching"} <= found.keys()


def test_the_cpu_build_runs_eagerly_in_float32_from_local_files() -> None:
    found, tiny = flags("smollm2-135m-instruct-vllm"), model("smollm2-135m-instruct-vllm")
    assert (found["--dtype"], found["--enforce-eager"]) == ("float32", "")
    assert "--gpu-memory-utilization" not in found
    assert vllm_command(tiny, SETTINGS)[2] == str(SETTINGS.var / "models/smollm2-135m-instruct-hf")
    assert vllm_environment(tiny, SETTINGS)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in vllm_environment(model("qwen3-8b"), SETTINGS)


def test_nothing_is_reported_to_the_makers_and_idle_connections_outlive_our_pools() -> None:
    variables = vllm_environment(model("qwen3-8b"), SETTINGS)
    assert (variables["VLLM_NO_USAGE_STATS"], variables["DO_NOT_TRACK"]) == ("1", "1")
    assert int(variables["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) == KEEP_ALIVE_SECONDS > 4


def test_the_api_key_is_in_the_environment_and_never_in_the_command() -> None:
    settings = Settings(api_key="sk-secret")
    assert "sk-secret" not in " ".join(vllm_command(model("qwen3-8b"), settings))
    assert vllm_environment(model("qwen3-8b"), settings)["VLLM_API_KEY"] == "sk-secret"
    planned = CliRunner().invoke(commands, ["plan", "qwen3-8b"], env={"LLM_SERVER_API_KEY": "sk-secret"})
    assert "sk-secret" not in planned.output


def test_settings_come_from_options_then_variables_then_defaults() -> None:
    environ = {"LLM_SERVER_PORT": "9000", "LLM_SERVER_VAR": "/srv/tandem", "LLM_SERVER_HOST": ""}
    settings = read_settings(environ, port=9001, host=None)
    assert (settings.port, settings.var, settings.host) == (9001, Path("/srv/tandem"), "127.0.0.1")


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"LLM_SERVER_PORT": "http"}, "LLM_SERVER_PORT: Expected `int`"),
        ({"LLM_SERVER_PORT": "tcp://10.0.0.1:8001"}, "enableServiceLinks: false"),
        ({"LLM_SERVER_PORT": "70000"}, "port 70000 is not between"),
        ({"LLM_SERVER_THREADS": "0"}, "threads must be 1 or more"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidSetting, match=complaint):
        read_settings(environ)


def test_variables_that_kubernetes_makes_for_our_name_do_no_harm() -> None:
    assert read_settings({"LLM_SERVER_SERVICE_HOST": "10.0.0.1"}) == Settings()


def test_a_missing_vllm_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match=r"make \.venv/vllm/\.ready"):
        vllm_executable(Settings(), root=tmp_path)
    with pytest.raises(EngineMissing, match="LLM_SERVER_VLLM names no executable"):
        vllm_executable(Settings(vllm=str(tmp_path / "vllm")))


def test_a_plan_can_be_pasted_into_a_shell_and_read_by_scripts() -> None:
    printed = CliRunner().invoke(commands, ["plan", "qwen3-8b"]).stdout
    assert printed.startswith("VLLM_NO_USAGE_STATS=1 \\\n")
    planned = json.loads(CliRunner().invoke(commands, ["plan", "qwen3-8b", "--json"]).stdout)
    assert planned["command"][:3] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    assert planned["approved"] is True
    embedded = CliRunner().invoke(commands, ["plan"]).stdout
    assert "llm-server serve smollm2-135m-instruct --host 127.0.0.1 --port 8001" in embedded


@pytest.mark.parametrize("name", ["serve", "models", "verify", "approve", "plan"])
def test_every_command_shows_an_example(name: str) -> None:
    result = CliRunner().invoke(commands, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: llm-server {name}" in result.stdout


def test_serve_becomes_vllm_with_its_exit_status(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text('#!/bin/sh\necho "$VLLM_API_KEY $LLM_SERVER_API_KEY $$" "$@"\nexit 7\n')
    script.chmod(0o755)
    process = subprocess.Popen(
        command("serve", "qwen3-8b", "--port", str(free_port())),
        env=environment(LLM_SERVER_VLLM=str(script), LLM_SERVER_API_KEY="k"),
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 7
    assert said.startswith(f"k  {process.pid} serve Qwen/Qwen3-8B --host 127.0.0.1")


def test_an_unapproved_model_is_not_started(tmp_path: Path) -> None:
    done = subprocess.run(
        command("serve", "llama-31-8b-instruct"),
        env=environment(LLM_SERVER_VLLM=os.devnull),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("llm-server: llama-31-8b-instruct is not approved (licence: Llama 3.1")
