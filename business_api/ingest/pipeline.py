"""The way of documents into the index: find, read, cut, embed, stage, publish.

Readers see the old state until the one call of `publish`, and the new one after it. Whatever breaks before
that leaves the old state. One document that cannot be read never stops the others.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from business_api.ingest.chunking import CHUNK_CHARACTERS, CHUNK_TOKENS, VERSION, Chunker, Piece
from business_api.ingest.finding import DocumentFile, Found, find
from business_api.ingest.reading import Reader, Text, Unreadable
from business_api.ingest.summary import Account, Summary
from business_api.ingest.watching import Unwatched, Watch
from business_api.vector_store.protocol import Point, StoredDocument, VectorStore

if TYPE_CHECKING:
    from business_api.embedding import Embedder

BATCH = 32
"""Chunks that are embedded together."""

_WINDOW = 16
"""Batches that are collected and sorted by length: what a run holds in memory beside one document."""

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
    indexer = _Indexer(store, embedder, tenant=tenant, generation=generation, watch=watch, batch=batch)
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


class _Staged(msgspec.Struct, frozen=True):
    """A piece on its way, with the share of its document's bytes that is done with it."""

    piece: Piece
    content_hash: str
    size: float


class _Indexer:
    """Embeds and stages; retires a document before the first chunk of its new version is staged."""

    def __init__(
        self,
        store: VectorStore,
        embedder: "Embedder",
        *,
        tenant: str,
        generation: int,
        watch: Watch,
        batch: int,
    ) -> None:
        self.chunker = Chunker(embedder.tokenizer, embedder.max_tokens)
        self.watch = watch
        self.embedding_seconds = 0.0
        self._store, self._embedder = store, embedder
        self._tenant, self._generation, self._batch = tenant, generation, batch
        self._waiting: list[_Staged] = []
        self._touched = False

    def content_hash(self, text: str) -> str:
        """Same hash: same text, cut and embedded in the same way."""
        limits = f"{CHUNK_TOKENS}/{CHUNK_CHARACTERS}/{self._embedder.max_tokens}"
        how = f"{VERSION}/{limits}/{self._embedder.name}\n"
        return hashlib.sha256(how.encode() + text.encode()).hexdigest()

    async def retire(self, documents: Sequence[str]) -> None:
        if documents:
            self._touched = True
            await self._store.retire(self._tenant, self._generation, documents)

    async def add(self, pieces: Sequence[Piece], content_hash: str, size: int) -> None:
        for piece in pieces:
            self._waiting.append(_Staged(piece, content_hash, size / len(pieces)))
            if len(self._waiting) >= self._batch * _WINDOW:
                await self._flush()

    async def _flush(self) -> None:
        # texts of about the same length share a batch: the embedder pads the shorter ones
        waiting = sorted(self._waiting, key=lambda staged: len(staged.piece.embedded))
        self._waiting = []
        for start in range(0, len(waiting), self._batch):
            batch = waiting[start : start + self._batch]
            began = time.perf_counter()
            vectors = await self._embedder.embed([staged.piece.embedded for staged in batch])
            self.embedding_seconds += time.perf_counter() - began
            points = [
                Point(staged.piece.chunk, vector, staged.content_hash)
                for staged, vector in zip(batch, vectors, strict=True)
            ]
            self._touched = True
            await self._store.stage(self._tenant, self._generation, points)
            self.watch.advance(sum(staged.size for staged in batch), chunks=len(batch))

    async def publish(self) -> bool:
        """Make all of it visible; False if there was nothing to publish."""
        await self._flush()
        if self._touched:
            self.watch.message("publishing")
            await self._store.publish(self._tenant, self._generation)
        await self._store.vacuum(self._tenant)
        return self._touched


class _Run:
    """Decides for each document, and keeps the accounts."""

    def __init__(self, tenant: str, stored: Mapping[str, StoredDocument], indexer: _Indexer) -> None:
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
        await self.indexer.add(pieces, content_hash, file.size)
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
