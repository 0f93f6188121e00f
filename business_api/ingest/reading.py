"""Reads one document's text. What cannot be read is an Unreadable with a reason for people.

Markdown and plain text are taken as they are: UTF-8 and nothing else, without byte order mark, every line
end (`\\r\\n`, `\\r`) as `\\n`. HTML, PDF and DOCX are converted by a child process with a time limit. All
offsets of chunks count characters of the text returned here.
"""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from business_api.ingest.finding import DocumentFile

MAX_BYTES = 20 * 1024 * 1024
"""Larger files are reported, not read."""

CONVERT_SECONDS = 120.0
"""Longest time that one conversion may take."""

MARKDOWN = frozenset(("markdown", "html", "docx"))
"""Kinds of files whose text has Markdown's headings, by themselves or once they are converted."""

_SCRIPT = Path(__file__).with_name("converter.py")


class Unreadable(Exception):
    """This one document cannot be read; the message says why."""


class Text(msgspec.Struct, frozen=True):
    """A document's text, `\\n` line ends; `title` if the file format knows one."""

    text: str
    markdown: bool
    title: str | None = None


class Reader:
    """Reads documents. Use as an async context manager: it may own a child process."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, seconds: float = CONVERT_SECONDS) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._child: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def read(self, file: DocumentFile) -> Text:
        """The text of the file. Raises Unreadable."""
        content = await asyncio.to_thread(self._bytes, file.path)
        if file.kind in ("markdown", "text"):
            return Text(_decoded(content), markdown=file.kind in MARKDOWN)
        if file.kind == "html" and b"\0" in content:
            raise Unreadable("binary: it holds NUL bytes")
        if not content.strip():
            return Text("", markdown=False)
        text, title = await self._converted(file)
        return Text(_unix_lines(text), markdown=file.kind in MARKDOWN, title=title)

    def _bytes(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(self._max_bytes + 1)
        except OSError as exc:
            raise Unreadable("the file cannot be read") from exc
        if len(content) > self._max_bytes:
            raise Unreadable(f"larger than {self._max_bytes / 1024 / 1024:g} MB")
        return content

    async def _converted(self, file: DocumentFile) -> tuple[str, str | None]:
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._ask(file)
        except TimeoutError as exc:
            await self._stop()
            raise Unreadable(f"converting it took longer than {self._seconds:g} s") from exc
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as exc:
            await self._stop()
            raise Unreadable(f"converting the {file.kind.upper()} broke the converter") from exc
        if "failed" in answer:
            raise Unreadable(answer["failed"])
        return answer["text"], answer["title"]

    async def _ask(self, file: DocumentFile) -> dict[str, str]:
        if self._child is None:
            command = (sys.executable, "-I", "-X", "utf8", str(_SCRIPT))
            self._child = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
            )
        assert self._child.stdin
        assert self._child.stdout
        question = json.dumps({"path": str(file.path), "kind": file.kind})
        self._child.stdin.write(question.encode() + b"\n")
        await self._child.stdin.drain()
        length = int(await self._child.stdout.readuntil(b"\n"))
        answer: dict[str, str] = json.loads(await self._child.stdout.readexactly(length))
        return answer

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        # reads to the end and waits: otherwise the pipes outlive the loop
        await child.communicate()


def _decoded(content: bytes) -> str:
    if b"\0" in content:
        raise Unreadable("binary: it holds NUL bytes")
    try:
        return _unix_lines(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        byte = content[exc.start]
        raise Unreadable(f"not UTF-8: byte 0x{byte:02x} at offset {exc.start}") from exc


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
