"""The commands that show and change what is indexed: versions, reindex, rollback, documents, remove."""

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from business_api.settings import Settings
from business_api.terminal import fail, read_settings, run

if TYPE_CHECKING:
    from business_api.ingest.reindexing import Reindexed
    from business_api.vector_store import Catalogue, StoredDocument, Version

index = typer.Typer()
Collection = Annotated[str, typer.Option(help="Which collection.")]
Tenant = Annotated[str | None, typer.Option(help="Whose documents; default: BUSINESS_API_TENANT.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@index.command()
def documents(collection: Collection = "kb", tenant: Tenant = None, as_json: Json = False) -> None:
    """List the documents of a collection.

    Example: business-api documents --json
    """
    settings = read_settings()
    found = run(_documents(settings, collection, tenant or settings.tenant))
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    if not found:
        print(f"nothing is ingested into {collection!r}", file=sys.stderr)
    table = Table("document", "title", "chunks")
    table.columns[0].overflow = "fold"  # ids, to be given to `remove`
    for document in found:
        table.add_row(document.document, document.title, str(document.chunks))
    Console().print(table)


@index.command()
def remove(
    documents: Annotated[list[str], typer.Argument(help="Ids, as `business-api documents` shows them.")],
    collection: Collection = "kb",
    tenant: Tenant = None,
) -> None:
    """Remove single documents, also from the version that a rollback would bring back.

    The next question does not find them. Example: business-api remove docs/old.md
    """
    settings = read_settings()
    removed = run(_remove(settings, collection, tenant or settings.tenant, documents))
    for document, chunks in removed.items():
        print(f"removed {document} ({chunks} chunks)", file=sys.stderr)


@index.command()
def versions(collection: Collection = "kb", as_json: Json = False) -> None:
    """List the versions of a collection: which is live, and which one a rollback would bring back.

    Example: business-api versions --json
    """
    found = run(_versions(read_settings(), collection))
    if as_json:
        listed = [msgspec.to_builtins(version) | {"chunks": chunks} for version, chunks in found]
        print(json.dumps(listed, indent=2))
        return
    table = Table("version", "standing", "model", "dimension", "chunks", "made")
    for version, chunks in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.made_at)) if version.made_at else ""
        cells = (version.standing, version.model, str(version.dimension), f"{chunks:,}", made)
        table.add_row(version.name, *cells)
    Console().print(table)


@index.command()
def reindex(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files and folders to bring the new version up to date with.", show_default="none"
        ),
    ] = None,
    collection: Collection = "kb",
    tenant: Annotated[
        str | None, typer.Option(help="Whose documents the paths are; default: BUSINESS_API_TENANT.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the next version beside the live one, for all tenants, with the settings as they are now.

    It is checked before it becomes live, and the one before is kept for `rollback`. A running service goes
    on answering, and changes over by itself. Example: business-api reindex
    """
    if missing := [str(path) for path in paths or () if not path.exists()]:
        fail(f"no such file or folder: {', '.join(missing)}", code=2)
    settings = read_settings()
    done = run(_reindex(settings, paths or [], collection, tenant or settings.tenant, quiet=as_json))
    if as_json:
        print(json.dumps(msgspec.to_builtins(done) | {"summary": done.summary.as_dict()}, indent=2))
        return
    console = Console()
    console.print(done.summary.render())
    console.print(
        f"{done.version} is live now; {done.questions} documents were asked for and found. "
        f"{done.before} is kept: business-api rollback --collection {collection}",
        markup=False,
    )
    for name in done.dropped:
        console.print(f"dropped {name}", style="dim", markup=False)


@index.command()
def rollback(collection: Collection = "kb") -> None:
    """Make the version before the live one live again, at once. Doing it twice leads back.

    Example: business-api rollback
    """
    settings = read_settings()
    version = run(_rollback(settings, collection))
    print(f"{version.name} is live now", file=sys.stderr)
    if version.model != settings.embedding.model:
        print(
            f"it was made by {version.model!r}: services go on with the version they have until they are "
            f"started with BUSINESS_API_EMBEDDING__MODEL={version.model}",
            file=sys.stderr,
        )


@asynccontextmanager
async def _catalogue(settings: Settings, collection: str) -> AsyncIterator["Catalogue"]:
    from business_api.vector_store import open_catalogue

    catalogue = open_catalogue(settings, collection)
    try:
        yield catalogue
    finally:
        await catalogue.aclose()


async def _documents(settings: Settings, collection: str, tenant: str) -> list["StoredDocument"]:
    from business_api.vector_store import reading

    async with _catalogue(settings, collection) as catalogue:
        live = await catalogue.live()
        if live is None:
            return []
        async with reading(catalogue, live) as store:
            return sorted((await store.documents(tenant)).values(), key=lambda one: one.document)


async def _versions(settings: Settings, collection: str) -> list[tuple["Version", int]]:
    from business_api.vector_store import reading

    found = []
    async with _catalogue(settings, collection) as catalogue:
        for version in await catalogue.versions():
            async with reading(catalogue, version.name) as store:
                found.append((version, sum([await store.count(one) for one in await store.tenants()])))
    return found


async def _remove(settings: Settings, collection: str, tenant: str, documents: list[str]) -> dict[str, int]:
    from business_api.ingest.removing import remove as remove_documents
    from business_api.vector_store.opening import grace_of

    async with _catalogue(settings, collection) as catalogue:
        return await remove_documents(catalogue, documents, tenant=tenant, grace=grace_of(settings))


async def _rollback(settings: Settings, collection: str) -> "Version":
    from business_api.ingest.reindexing import rollback as roll_back

    async with _catalogue(settings, collection) as catalogue:
        return await roll_back(catalogue)


async def _reindex(
    settings: Settings, paths: list[Path], collection: str, tenant: str, *, quiet: bool
) -> "Reindexed":
    from business_api.embedding import open_embedder
    from business_api.ingest import rich_watch
    from business_api.ingest.reindexing import reindex as build_next

    async with _catalogue(settings, collection) as catalogue:
        embedder = await open_embedder(settings)
        try:
            watched: Any = nullcontext(None) if quiet else rich_watch()
            with watched as watch:
                return await build_next(catalogue, embedder, tenant=tenant, paths=paths, watch=watch)
        finally:
            await embedder.aclose()
