"""While there is work for a caller it is listened for; who hangs up ends the work."""

import asyncio
import gc
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from business_api.errors import CallerGone
from business_api.listening import CallerListens
from business_api.one_write import OneWrite
from tests.asgi_wire import Receive, Scope, Send, read, respond
from tests.test_one_write import connected, request

LARGE = 4_000_000


async def work(receive: Receive, told: "asyncio.Queue[object]") -> None:
    """Without end; tells how many tasks there are, and that the caller is gone."""
    try:
        async with CallerListens(receive):
            told.put_nowait(len(asyncio.all_tasks()))
            await asyncio.Event().wait()
    except CallerGone as exc:
        told.put_nowait(exc)


async def test_listening_for_a_caller_leaves_nothing_to_the_garbage_collection() -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            async with CallerListens(receive):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert gc.collect() < 10
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("ahead", [0, 1])
async def test_who_hangs_up_ends_the_work(size: int, ahead: int) -> None:
    """Behind a large body too, which stops the reading; and with another request behind it."""
    told: asyncio.Queue[object] = asyncio.Queue()

    async def working(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await work(receive, told)

    async with connected(working) as (_, writer):
        writer.write(request("POST", body="x" * size) + request("POST") * ahead)
        await writer.drain()
        assert await told.get() == 2  # nobody else watches
        writer.close()
        assert isinstance(await told.get(), CallerGone)


async def test_who_was_gone_before_is_noticed_at_once() -> None:
    told: asyncio.Queue[object] = asyncio.Queue()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        told.put_nowait("asked")
        assert (await receive())["type"] == "http.disconnect"
        await work(receive, told)

    async with connected(slow) as (_, writer):
        writer.write(request("POST"))
        assert await told.get() == "asked"
        writer.close()
        assert await told.get() == 3  # a task watches, to which the server says so
        assert isinstance(await told.get(), CallerGone)


async def test_who_hangs_up_after_the_work_disturbs_nothing() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def working(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        async with CallerListens(receive):
            pass
        told.put_nowait("worked")
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.sleep(0)
        await respond(send, 200, b"nobody reads this")
        told.put_nowait("went on")

    async with connected(working) as (_, writer):
        writer.write(request("POST"))
        assert await told.get() == "worked"
        writer.close()
        assert await told.get() == "went on"


async def test_the_cancellation_of_somebody_else_is_not_taken_for_a_hang_up() -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    async def work() -> None:
        async with CallerListens(receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def alive() -> int:
    """Requests that are held on to; other tests may have left some."""
    return sum(issubclass(type(one), OneWrite | RequestResponseCycle) for one in gc.get_objects())


async def test_who_hangs_up_leaves_nothing_to_the_garbage_collection() -> None:
    told: asyncio.Queue[object] = asyncio.Queue()

    async def working(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await work(receive, told)

    async def hang_up() -> None:
        async with connected(working) as (_, writer):
            writer.write(request("POST"))
            await told.get()
        assert isinstance(await told.get(), CallerGone)

    await hang_up()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(10):
            await hang_up()
        assert alive() < before + 5
    finally:
        gc.enable()
