"""The command `llm-server`: serve a model, and keep the registry of models."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from llm_server import embedded
from llm_server.errors import InvalidSetting, LlmServerError
from llm_server.launch import exec_vllm, vllm_command, vllm_environment
from llm_server.ports import require_free
from llm_server.registry import Model, Registry, require_approved, require_pinned, verify
from llm_server.settings import Settings, read_settings

ModelName = Annotated[str | None, typer.Argument(help="Name in the registry. [env: LLM_SERVER_MODEL]")]
Host = Annotated[str | None, typer.Option(help="Interface to listen on. [env: LLM_SERVER_HOST]")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [env: LLM_SERVER_PORT]")]
Engine = Annotated[str | None, typer.Option(help="`llama.cpp` or `vllm`. [env: LLM_SERVER_ENGINE]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

commands = typer.Typer(
    help="Starts vLLM, or the embedded llama.cpp engine, for an approved model of the registry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def _told() -> Iterator[None]:
    """What a user can do something about ends in one line and an exit status, not in a traceback."""
    try:
        yield
    except LlmServerError as exc:
        print(f"llm-server: {exc}", file=sys.stderr)
        raise typer.Exit(exc.code) from exc


def _chosen(name: str | None, **given: Any) -> tuple[Registry, Model, Settings]:
    settings = read_settings(os.environ, model=name, **given)
    registry = Registry.load(settings.registry)
    return registry, registry.find(settings.model, settings.engine), settings


@commands.command()
def serve(model: ModelName = None, host: Host = None, port: Port = None, engine: Engine = None) -> None:
    """Serve a model over the OpenAI API until Ctrl-C or SIGTERM.

    Example: llm-server serve smollm2-135m-instruct --port 8001
    """
    with _told():
        _, chosen, settings = _chosen(model, host=host, port=port, engine=engine)
        require_approved(chosen)
        if chosen.engine == "vllm" and settings.port == 0:
            raise InvalidSetting("vLLM cannot take a free port by itself: give one with --port")
        require_free(settings.host, settings.port)
        verify(chosen, settings.var)
        if not settings.loopback and not settings.api_key:
            print(
                f"llm-server: anyone who reaches {settings.host} may use the model: set LLM_SERVER_API_KEY",
                file=sys.stderr,
            )
        if chosen.engine == "vllm":
            exec_vllm(chosen, settings, os.environ)
        embedded.serve(chosen, settings, _announced(chosen, settings))


def _announced(model: Model, settings: Settings) -> Callable[[str], None]:
    def announce(url: str) -> None:
        slots = f"{model.max_num_seqs} x {model.max_model_len} tokens, {settings.threads} threads"
        print(f"llm-server: {model.asked_for} at {url}/v1 ({slots})", flush=True)

    return announce


@commands.command("models")
def list_models(as_json: Json = False) -> None:
    """List the models of the registry.

    Example: llm-server models --json
    """
    with _told():
        registry = Registry.load(read_settings(os.environ).registry)
    if as_json:
        _print_json([_facts(model) for model in registry.models])
        return
    width = max(len(model.name) for model in registry.models)
    for model in registry.models:
        state = "approved" if model.approved else "not approved"
        print(f"{model.name:{width}}  {model.engine:9}  {model.device}  {state:12}  {model.description}")


@commands.command("verify")
def verify_models(model: ModelName = None, as_json: Json = False) -> None:
    """Hold local files against their digests, or a hub model against its pin. Without MODEL: the default one.

    Example: llm-server verify smollm2-135m-instruct
    """
    with _told():
        _, chosen, settings = _chosen(model)
        require_pinned(chosen)
        verify(chosen, settings.var)
    found = "files" if chosen.local else "revision"
    detail = f"{len(chosen.files)} files unaltered" if chosen.local else f"pinned to {chosen.revision}"
    if as_json:
        _print_json({"model": chosen.name, "verified": found, "detail": detail})
    else:
        print(f"{chosen.name}: {detail}")


@commands.command()
def approve(
    model: Annotated[str, typer.Argument(help="Name in the registry.")],
    revision: Annotated[str | None, typer.Option(help="Commit of the hub repository to pin.")] = None,
) -> None:
    """Approve a model after review: its files or its commit are checked, then the registry is edited.

    Example: llm-server approve llama-31-8b-instruct --revision 0e9e39f249a16976918f6564b8830bc894c89659
    """
    with _told():
        registry, chosen, settings = _chosen(model)
        approved = registry.approve(chosen, settings.var, revision)
    at = approved.revision or f"{len(approved.files)} local files"
    print(f"{approved.name}: approved at {at}; review and commit {registry.path}")


@commands.command()
def plan(
    model: ModelName = None,
    host: Host = None,
    port: Port = None,
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Print how a model would be started, without starting it. The API key is left out.

    Example: llm-server plan qwen3-30b-a3b-fp8
    """
    with _told():
        _, chosen, settings = _chosen(model, host=host, port=port, engine=engine)
    command, environment = _planned(chosen, settings)
    if as_json:
        facts = {"model": chosen.name, "engine": chosen.engine, "approved": chosen.approved}
        _print_json(facts | {"environment": environment, "command": command})
        return
    for variable, value in environment.items():
        print(f"{variable}={shlex.quote(value)} \\")
    print(shlex.join(command))


def _planned(model: Model, settings: Settings) -> tuple[list[str], dict[str, str]]:
    """The command and its variables."""
    if model.engine == "vllm":
        environment = vllm_environment(model, settings)
        environment.pop("VLLM_API_KEY", None)
        return vllm_command(model, settings), environment
    command = ["llm-server", "serve", model.name, "--host", settings.host, "--port", str(settings.port)]
    return command, {"OMP_WAIT_POLICY": "passive", "LLM_SERVER_THREADS": str(settings.threads)}


def _facts(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "served_name": model.asked_for,
        "engine": model.engine,
        "device": model.device,
        "source": model.source,
        "revision": model.revision,
        "licence": model.licence,
        "quantization": model.quantization,
        "max_model_len": model.max_model_len,
        "gpus": model.gpus if model.device == "gpu" else 0,
        "gpu_memory_gib": model.gpu_memory_gib,
        "approved": model.approved,
        "description": model.description,
    }


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def main() -> None:
    """Run the command line."""
    commands()
