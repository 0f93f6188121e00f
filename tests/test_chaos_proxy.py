"""The chaos proxy: what each weather does to a connection, over real sockets."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.chaos import CALM, Chaos, End, Weather
from loadtests.running import ROOT
from tests.fakes import eventually

MEGABYTE = 1_000_000


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """The address of a server that says everything again, and hangs up when its caller has no more to say."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def talking(
    weather: Weather = CALM,
) -> AsyncIterator[tuple[Chaos, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with echoing() as address, Chaos(address, weather) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield proxy, reader, writer
        finally:
            writer.close()


async def test_in_calm_weather_everything_passes_and_the_end_too() -> None:
    async with talking() as (proxy, reader, writer):
        writer.write(b"x" * MEGABYTE)
        writer.write_eof()
        assert len(await reader.read(-1)) == MEGABYTE
        await eventually(lambda: proxy.open == 0)
        assert proxy.connections == 1


async def overtaken(weather: Weather, sent: bytes) -> bytes:
    """What comes back through the weather; a calm connection that was opened and used later must win."""
    async with talking(weather) as (_, reader, writer), talking() as (_, calm, later):
        writer.write(sent)
        back = asyncio.create_task(reader.readexactly(len(sent)))
        later.write(sent)
        await calm.readexactly(len(sent))
        assert not back.done()
        return await back


async def test_a_delay_holds_back_and_loses_nothing() -> None:
    assert await overtaken(Weather(delay=0.25), b"0123456789") == b"0123456789"


async def test_a_throttle_lets_so_many_bytes_pass_in_a_second() -> None:
    assert len(await overtaken(Weather(bytes_per_second=100_000), b"x" * 80_000)) == 80_000


@pytest.mark.parametrize("by", ["fin", "rst"])
async def test_a_connection_is_cut_after_so_many_bytes_of_answers(by: End) -> None:
    async with echoing() as address, Chaos(address, Weather(cut_after=1000, cut_by=by)) as proxy:
        assert await asyncio.to_thread(received, proxy.port, 4000) == (1000, by)
        assert await asyncio.to_thread(received, proxy.port, 4000) == (1000, by)
        await eventually(lambda: proxy.open == 0)


def received(port: int, sent: int) -> tuple[int, End]:
    """How many bytes come back of so many sent, and how the connection ends."""
    number = 0
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"x" * sent)
            while piece := connection.recv(65536):
                number += len(piece)
    except (ConnectionResetError, BrokenPipeError):
        return number, "rst"
    return number, "fin"


@pytest.mark.parametrize("by", ["fin", "rst"])
async def test_open_connections_are_cut_at_will(by: End) -> None:
    async with talking() as (proxy, reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await proxy.cut(by)
        if by == "fin":
            assert await reader.read() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert proxy.open == 0


async def test_a_blackhole_accepts_and_forwards_nothing_until_it_is_gone() -> None:
    async with talking(Weather(blackhole=True)) as (proxy, reader, writer):
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.1)
        await proxy.change(CALM)
        assert await reader.readexactly(4) == b"held"


async def test_a_blackhole_opens_in_the_middle_of_an_answer() -> None:
    async with talking() as (proxy, reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        await proxy.change(Weather(blackhole=True))
        writer.write(b"after")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(5), 0.1)


async def test_a_refusing_proxy_takes_no_new_connection_and_keeps_those_it_has() -> None:
    async with talking() as (proxy, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        await proxy.change(Weather(refuse=True))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        await proxy.change(CALM)
        _, again = await asyncio.open_connection("127.0.0.1", proxy.port)
        again.close()


async def test_what_is_not_read_is_not_taken_either() -> None:
    async with talking(Weather(blackhole=True)) as (_, _, writer):
        sock = writer.get_extra_info("socket")
        taken = 0
        writer.write(b"x" * (64 * MEGABYTE))
        for _ in range(20):
            await asyncio.sleep(0.01)
            taken = 64 * MEGABYTE - writer.transport.get_write_buffer_size()
        # what the kernel buffers on both sides, and 1 MiB in the proxy
        assert 0 < taken < 32 * MEGABYTE, sock


@pytest.mark.parametrize("by", ["fin", "rst"])
async def test_how_the_target_ends_a_connection_is_passed_on(by: End) -> None:
    weather = Weather(cut_after=7, cut_by=by)
    async with echoing() as address, Chaos(address, weather) as target, Chaos(target.url) as proxy:
        assert await asyncio.to_thread(received, proxy.port, 100) == (7, by)
        await eventually(lambda: proxy.open == 0)


async def test_a_caller_who_hangs_up_is_hung_up_on_at_the_target() -> None:
    async with talking() as (proxy, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        writer.transport.abort()
        await eventually(lambda: proxy.open == 0)


async def test_a_target_that_nobody_serves_is_a_reset() -> None:
    async with echoing() as address:
        pass
    async with Chaos(address) as proxy:
        assert await asyncio.to_thread(received, proxy.port, 1) == (0, "rst")


async def test_the_command_prints_where_it_listens() -> None:
    async with echoing() as address:
        command = ("-m", "loadtests.chaos", "--cut-after", "10", "--to", address)
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        try:
            assert child.stdout is not None
            port = int((await child.stdout.readline()).rpartition(b":")[2])
            assert await asyncio.to_thread(received, port, 100) == (10, "rst")
        finally:
            child.kill()
            await child.wait()
