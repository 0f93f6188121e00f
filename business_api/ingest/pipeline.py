"""The way of documents into the index: find, read, cut, embed, stage, publish.

Readers see the old state until the one call of `publish`, and the new one after it. Whatever breaks before
that leaves the old state. One document that cannot be read never stops the others.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from business_api.ingest.chunking import Piece
from business_api.ingest.finding import DocumentFile, Found, find
from business_api.ingest.front_matter import about
from business_api.ingest.indexing import BATCH, Indexer
from business_api.ingest.reading import Reader, Text, Unreadable
from business_api.ingest.summary import Account, Summary
from business_api.ingest.watching import Unwatched, Watch
from business_api.passages import About
from business_api.vector_store.protocol import StoredDocument, VectorStore

if TYPE_CHECKING:
    from business_api.embedding import Embedder

_log = logging.getLogger(__name__)


async def ingest(
    paths: Sequence[Path],
    *,
    tenant: str,
    store: VectorStore,
    embedder: "Embedder",
    watch: Watch | None = None,
    batch: int = BATCH,
) -> Summary:
    """Bring a tenant's index up to date with the files and folders given.

    Which stored documents are removed is said in `finding`. Raises InvalidRequest for paths that cannot be
    ingested, before any work, and RetrievalUnavailable if store or embedder fail: nothing changed then.
    """
    started = time.perf_counter()
    watch = watch or Unwatched()
    found = await asyncio.to_thread(find, paths)
    watch.total(sum(file.size for file in found.documents))
    generation = await store.begin(tenant)
    indexer = Indexer(store, embedder, tenant=tenant, generation=generation, watch=watch, batch=batch)
    run = _Run(tenant, await store.documents(tenant), indexer)
    async with Reader() as reader:
        for file in found.documents:
            watch.message(file.document)
            await run.take(file, reader)
    await run.remove(found)
    published = await run.indexer.publish()
    return Summary(
        documents=(*run.accounts, *_passed_over(found)),
        published=published,
        seconds=time.perf_counter() - started,
        embedding_seconds=run.indexer.embedding_seconds,
    )


class _Run:
    """Decides for each document, and keeps the accounts."""

    def __init__(self, tenant: str, stored: Mapping[str, StoredDocument], indexer: Indexer) -> None:
        self.accounts: list[Account] = []
        self.indexer = indexer
        self._tenant, self._stored = tenant, stored

    async def take(self, file: DocumentFile, reader: Reader) -> None:
        """Read one document and index it if it is not there as it is."""
        try:
            account = await self._indexed(file, reader)
        except Unreadable as exc:
            kept = "; its earlier version stays" if file.document in self._stored else ""
            account = _account(file, status="failed", reason=f"{exc}{kept}")
        self.accounts.append(account)
        if account.status not in ("added", "changed"):
            self.indexer.watch.advance(file.size)

    async def _indexed(self, file: DocumentFile, reader: Reader) -> Account:
        read = await reader.read(file)
        before = self._stored.get(file.document)
        length, removed = len(read.text), before.chunks if before else 0
        if not read.text.strip():
            await self.indexer.retire([file.document] if before else [])
            return _account(
                file,
                status="dropped",
                reason=_emptiness(file, before),
                chunks_removed=removed,
                characters=length,
                dropped={"whitespace": length} if length else {},
            )
        content_hash = self.indexer.content_hash(read.text)
        if before and before.content_hash == content_hash:
            return _account(
                file, status="unchanged", chunks=before.chunks, characters=length, indexed_before=length
            )
        pieces = await asyncio.to_thread(self._cut, read, file.document, content_hash)
        await self.indexer.retire([file.document] if before else [])
        said = about(read.text) if read.markdown else About()
        await self.indexer.add(pieces, content_hash, file.size, said)
        indexed = sum(piece.chunk.end - piece.chunk.start for piece in pieces)
        return _account(
            file,
            status="changed" if before else "added",
            chunks=len(pieces),
            chunks_removed=removed,
            characters=length,
            indexed=indexed,
            dropped={"whitespace": length - indexed},
        )

    def _cut(self, read: Text, document: str, content_hash: str) -> list[Piece]:
        try:
            return self.indexer.chunker.cut(
                read, tenant=self._tenant, document=document, content_hash=content_hash
            )
        except Exception as exc:  # ours or a parser's bug: it costs this document, not the others
            _log.exception("cannot cut %s into chunks", document)
            raise Unreadable("it cannot be cut into chunks") from exc

    async def remove(self, found: Found) -> None:
        """Retire what is no longer under the folders that were given."""
        vanished = found.vanished(self._stored)
        await self.indexer.retire(vanished)
        self.accounts.extend(
            Account(
                document=document,
                path="",
                status="removed",
                reason="it is no longer there",
                chunks_removed=self._stored[document].chunks,
            )
            for document in vanished
        )


def _account(file: DocumentFile, **what: Any) -> Account:
    return Account(document=file.document, path=str(file.path), bytes=file.size, **what)


def _emptiness(file: DocumentFile, before: StoredDocument | None) -> str:
    scanned = "; a scan?" if file.kind == "pdf" else ""
    reason = f"no text in it{scanned}" if file.size else "the file is empty"
    return f"{reason}; its earlier version is removed" if before else reason


def _passed_over(found: Found) -> list[Account]:
    return [
        Account(
            document=entry.document,
            path=str(entry.path).encode(errors="backslashreplace").decode(),
            status="failed" if entry.failed else "skipped",
            reason=entry.reason,
        )
        for entry in found.passed_over
    ]
