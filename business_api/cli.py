"""The command `business-api`."""

import json
import socket
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from business_api.eval_cli import FORWARDED, evaluate
from business_api.index_cli import index
from business_api.keys_cli import keys
from business_api.settings import Settings
from business_api.terminal import fail, mendable, read_settings, run

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers questions from your documents, with citations. Start with: business-api ingest PATH",
)
cli.add_typer(index)
cli.add_typer(keys, name="keys")
cli.command("eval", add_help_option=False, context_settings=FORWARDED)(evaluate)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Tenant = Annotated[str | None, typer.Option(help="Whose documents; default: BUSINESS_API_TENANT.")]


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default 8000.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve; default 1.")] = None,
    print_settings: Annotated[
        bool, typer.Option(help="Show the effective settings, secrets masked.")
    ] = False,
) -> None:
    """Serve the chat page and the OpenAI-compatible API.

    Example: business-api serve --port 8080
    """
    read = partial(read_settings, host=host, port=port, workers=workers)
    settings = read()
    if print_settings:
        print(settings.model_dump_json(indent=2))
        return
    if settings.workers > 1:
        from business_api.workers import serve_workers

        with mendable():
            raise typer.Exit(serve_workers(_listen(settings), settings, read))
    import uvloop

    from business_api.serving import serve_forever

    run(serve_forever(settings, _listen(settings)), uvloop.run)


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
    if missing := [str(path) for path in paths if not path.exists()]:
        fail(f"no such file or folder: {', '.join(missing)}", code=2)
    settings = read_settings()
    summary = run(_ingest(settings, paths, collection, tenant or settings.tenant, quiet=as_json))
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
    *,
    assistant: Annotated[str | None, typer.Option(help="Which assistant; default: the first one.")] = None,
    url: Annotated[
        str | None, typer.Option(help="A running business API; default: by your settings.")
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="TANDEM_API_KEY", help="API key.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show how the passages were chosen.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Search only some documents: documents=a.md,b.md, language=en, tags=a,b, after=2026-01-31, "
            "before=2026-12-31. Can be given more than once: all must hold.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a running business API and print the answer with its citations.

    Example: business-api ask "Which port does the LLM server listen on?" --explain
    """
    from business_api.asking import ask_server, print_answer

    settings = read_settings()
    address = url or f"http://{settings.host}:{settings.port}"
    answered = run(
        ask_server(address, key, question, assistant, explain=explain, filters=tuple(filters or ()))
    )
    if as_json:
        print(json.dumps(answered, indent=2))
    else:
        print_answer(answered)


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

    settings = read_settings()
    owner = tenant or settings.tenant
    with open_store(settings) as store:
        if exchange_id:
            one = store.get(owner, exchange_id) or fail(f"no exchange {exchange_id}", code=1)
            print(msgspec.json.format(msgspec.json.encode(one)).decode())
            return
        found = store.list(owner, limit=limit)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    table = Table("at", "outcome", "question", "id", show_edge=False)
    for column in (table.columns[0], table.columns[1], table.columns[3]):
        column.no_wrap = True
    console = Console()
    room = max(console.width - 67, 10)  # so that what others need is never cut
    for row in found:
        at = time.strftime("%m-%d %H:%M:%S", time.localtime(row.at))
        asked = " ".join(row.question.split())
        table.add_row(at, row.outcome, asked if len(asked) <= room else f"{asked[: room - 1]}…", row.id)
    console.print(table)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as exc:
        fail(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; use --port", code=1)
    return listening


def main() -> None:
    """Entry point."""
    cli()
