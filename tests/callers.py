"""Callers over raw connections that they keep: each broken or refused answer shows, nothing is retried."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


class Broken(Exception):
    """An answer was refused, or did not come to its end."""


@dataclass
class Heard:
    """Ids of exchanges whose answer was whole, and what went wrong with others, by the port of the caller."""

    whole: list[str] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)


class Caller:
    """One connection at a time, kept until the server says that it closes it."""

    def __init__(self, url: str, answer: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._answer = answer
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.port = 0

    async def ask(self) -> str:
        """Ask for a stream and read it to its end; the id of the exchange. Raises Broken."""
        try:
            if self._reader is None or self._reader.at_eof():
                await self.connect()
            return await self._asked()
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Broken(repr(exc)) from exc

    async def connect(self) -> None:
        """Open a connection. Raises OSError."""
        self.close()
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self.port = self._writer.get_extra_info("sockname")[1]

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _asked(self) -> str:
        assert self._reader is not None
        assert self._writer is not None
        asked = {"model": "plain", "stream": True, "messages": [{"role": "user", "content": "Say it."}]}
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        if " 200 " not in status:
            raise Broken(status)
        said = b"".join([part async for part in self._chunks()]).decode()
        if headers.get("connection") == "close":
            self.close()
        frames = [line[6:] for line in said.split("\n\n") if line.startswith("data: {")]
        if said.count("data: [DONE]") != 1 or self._text(frames) != self._answer:
            raise Broken(f"not the whole answer: {said[-300:]}")
        return headers["x-request-id"]

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The body, in whatever pieces it comes; a chunked one has to be ended."""
        assert self._reader is not None
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)

    @staticmethod
    def _text(frames: list[str]) -> str:
        choices = [choice for one in frames for choice in json.loads(one).get("choices", [])]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


@asynccontextmanager
async def asking(url: str, count: int, answer: str) -> AsyncIterator[Heard]:
    """`count` callers ask again and again; at the end each finishes the answer that it is at."""
    heard, ended = Heard(), asyncio.Event()

    async def go_on() -> None:
        caller = Caller(url, answer)
        while not ended.is_set():
            try:
                heard.whole.append(await caller.ask())
            except Broken as exc:
                heard.broken.append((caller.port, str(exc)))
                caller.close()
                await asyncio.sleep(0.05)
        caller.close()

    async with asyncio.TaskGroup() as callers:
        for _ in range(count):
            callers.create_task(go_on())
        try:
            yield heard
        finally:
            ended.set()


async def ask_once(url: str, count: int, answer: str) -> list[str]:
    """`count` callers ask at once, each over a connection of its own. Raises Broken."""
    callers = [Caller(url, answer) for _ in range(count)]
    try:
        return await asyncio.gather(*(caller.ask() for caller in callers))
    finally:
        for caller in callers:
            caller.close()
