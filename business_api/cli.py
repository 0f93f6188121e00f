"""The command `business-api`."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from business_api.errors import Refused, ServiceError
from business_api.settings import Settings

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers questions from your documents, with citations. Start with: business-api ingest PATH",
)
keys = typer.Typer(no_args_is_help=True, help="API keys: stored hashed, shown once.")
cli.add_typer(keys, name="keys")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Tenant = Annotated[str | None, typer.Option(help="Whose documents; default: BUSINESS_API_TENANT.")]


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default 8000.")] = None,
    print_settings: Annotated[
        bool, typer.Option(help="Show the effective settings, secrets masked.")
    ] = False,
) -> None:
    """Serve the chat page and the OpenAI-compatible API.

    Example: business-api serve --port 8080
    """
    settings = _settings(host=host, port=port)
    if print_settings:
        print(settings.model_dump_json(indent=2))
        return
    import uvloop

    from business_api.serving import run

    _run(run(settings, _listen(settings)), uvloop.run)


@cli.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: Markdown, text, HTML, PDF, DOCX.")],
    collection: Annotated[str, typer.Option(help="Collection to put the documents in.")] = "kb",
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Read documents, cut them into chunks, embed and index them.

    Unchanged documents are skipped, changed ones replaced, vanished ones removed; a bad file is reported and
    the rest goes on (exit code 1). Example: business-api ingest docs README.md
    """
    settings = _settings()
    summary = _run(_ingest(settings, paths, collection, tenant or settings.tenant, quiet=as_json))
    if as_json:
        print(json.dumps(summary.as_dict(), indent=2, default=str))
    else:
        Console().print(summary.render())
    if summary.failed:
        raise typer.Exit(1)


async def _ingest(settings: Settings, paths: list[Path], collection: str, tenant: str, *, quiet: bool) -> Any:
    from business_api.embedding import open_embedder
    from business_api.ingest import ingest as ingest_paths
    from business_api.ingest import rich_watch
    from business_api.vector_store import open_store

    embedder = await open_embedder(settings)
    try:
        store = await open_store(
            settings, collection, model=embedder.name, dimension=embedder.dimension, create=True
        )
        try:
            with nullcontext(None) if quiet else rich_watch() as watch:
                return await ingest_paths(paths, tenant=tenant, store=store, embedder=embedder, watch=watch)
        finally:
            await store.aclose()
    finally:
        await embedder.aclose()


@cli.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    assistant: Annotated[str | None, typer.Option(help="Which assistant; default: the first one.")] = None,
    url: Annotated[
        str | None, typer.Option(help="A running business API; default: by your settings.")
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="TANDEM_API_KEY", help="API key.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a running business API and print the answer with its citations.

    Example: business-api ask "Which port does the LLM server listen on?"
    """
    from business_api.asking import ask_server

    settings = _settings()
    answered = _run(ask_server(url or f"http://{settings.host}:{settings.port}", question, assistant, key))
    if as_json:
        print(json.dumps(answered, indent=2))
        return
    console = Console()
    console.print(answered["answer"], markup=False)
    for citation in answered["tandem"]["citations"]:
        quote = " ".join(citation["quote"].split())
        console.print(
            f"  [{citation['marker']}] {citation['document']}: “{quote}”", style="dim", markup=False
        )
    if answered["tandem"]["degraded"]:
        console.print(f"  degraded: {', '.join(answered['tandem']['degraded'])}", style="yellow")


@cli.command()
def documents(
    collection: Annotated[str, typer.Option(help="Which collection.")] = "kb",
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List the documents of a collection.

    Example: business-api documents --json
    """
    settings = _settings()
    found = _run(_documents(settings, collection, tenant or settings.tenant))
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    table = Table("document", "title", "chunks")
    for document in found:
        table.add_row(document.document, document.title, str(document.chunks))
    Console().print(table)


async def _documents(settings: Settings, collection: str, tenant: str) -> list[Any]:
    from business_api.vector_store import open_store

    store = await open_store(settings, collection, model=settings.embedding.model, dimension=0)
    try:
        return sorted((await store.documents(tenant)).values(), key=lambda d: d.document)
    finally:
        await store.aclose()


@cli.command()
def exchanges(
    exchange_id: Annotated[str | None, typer.Argument(help="Show this one, whole.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List what was asked and answered, or show one exchange with its passages, prompt and timings.

    Example: business-api exchanges --limit 5
    """
    from business_api.sink import open_store

    settings = _settings()
    owner = tenant or settings.tenant
    with open_store(settings) as store:
        if exchange_id:
            one = store.get(owner, exchange_id) or _fail(f"no exchange {exchange_id}", code=1)
            print(msgspec.json.format(msgspec.json.encode(one)).decode())
            return
        found = store.list(owner, limit=limit)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    table = Table("id", "outcome", "question", "answer", "ms")
    for row in found:
        ms = row.timings_ms.get("total", 0)
        table.add_row(row.id, row.outcome, row.question[:60], row.answer[:60], f"{ms:.0f}")
    Console().print(table)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key this is, for your own records.")],
    tenant: Tenant = None,
) -> None:
    """Make a key. It is printed once and cannot be shown again.

    Example: business-api keys create alice
    """
    settings = _settings()
    print(_keys(settings).create(name, tenant or settings.tenant))
    print("Keep it now: only its hash is stored.", file=sys.stderr)


@keys.command("list")
def list_keys(as_json: Json = False) -> None:
    """List keys: id, name, tenant, whether revoked. Example: business-api keys list"""
    found = _keys(_settings()).list()
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    table = Table("id", "name", "tenant", "created", "revoked")
    for key in found:
        table.add_row(key.id, key.name, key.tenant, str(key.created), str(key.revoked or ""))
    Console().print(table)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The id that `keys list` shows.")]) -> None:
    """Revoke a key; running services refuse it at once. Example: business-api keys revoke ID"""
    if not _keys(_settings()).revoke(key_id):
        _fail(f"no key {key_id}; see: business-api keys list", code=1)


def _keys(settings: Settings) -> Any:
    from business_api.guard import Keys

    return Keys.open(settings)


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        _fail(f"settings: {wrong}", code=2)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as exc:
        _fail(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; use --port", code=1)
    return listening


def _run(
    work: Coroutine[Any, Any, Any], runner: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run
) -> Any:
    """Run it; what an operator can mend is one line and exit code 1."""
    try:
        return runner(work)
    except (ServiceError, ValueError, OSError) as exc:
        _fail(str(exc), code=2 if isinstance(exc, Refused) else 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _fail(message: str, *, code: int) -> NoReturn:
    print(f"business-api: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    """Entry point."""
    cli()
