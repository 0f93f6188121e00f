"""A server that does not do what servers do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def a_server_that_says(answer: bytes | None) -> AsyncIterator[str]:
    """The URL of a server that answers everything with these bytes; None: with nothing, ever."""

    talking: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in talking:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
