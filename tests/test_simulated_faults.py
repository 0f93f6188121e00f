"""Each knob of the simulated LLM server does what it says, over real sockets."""

import asyncio
import json
import os
from typing import Any

import aiohttp
import pytest

from loadtests.simulated_faults import Act, Fault, Order
from loadtests.simulated_llm import simulated
from loadtests.simulated_replica import Replica
from tests.fakes import eventually
from tests.simulated_asking import (
    ASKED,
    HELD,
    STREAM,
    asking,
    asking_frozen,
    heard,
    metric,
    ordered,
    page,
    payloads,
    question,
    text,
    whole,
)


async def test_the_next_n_requests_are_refused_and_then_no_more() -> None:
    async with simulated(faults=(Fault(kind="status", status=429, retry_after=7, times=2),)) as server:
        for _ in range(2):
            async with asking(server, ASKED) as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (429, "7")
        assert (await whole(server))["choices"]


async def test_a_share_of_the_requests_is_refused() -> None:
    async with simulated(faults=(Fault(kind="status", status=500, share=0.25),)) as server:
        statuses = []
        for _ in range(8):
            async with asking(server, ASKED) as reply:
                statuses.append(reply.status)
        assert statuses.count(500) == 2
        server.obey(Order(clear=True))
        assert (await whole(server))["choices"]


async def test_an_aborted_answer_looks_like_success_but_for_its_reason() -> None:
    async with simulated(faults=(Fault(kind="abort", after=3),)) as server:
        found = await heard(server)
        assert [json.loads(one)["choices"][0]["finish_reason"] for one in found[4:5]] == ["abort"]
        assert found[-1] == b"[DONE]"
        assert text(found)
        assert (await whole(server))["choices"][0]["finish_reason"] == "abort"


async def test_an_error_comes_in_a_frame_under_200_and_done_follows() -> None:
    async with simulated(faults=(Fault(kind="error", after=2),)) as server:
        found = await heard(server)
        assert len(found) == 1 + 2 + 2
        assert json.loads(found[-2])["error"]["code"] == 500
        assert found[-1] == b"[DONE]"
        async with asking(server, ASKED) as reply:
            assert reply.status == 500


async def test_a_malformed_frame_is_in_the_middle_of_a_stream_that_ends_well() -> None:
    async with simulated(faults=(Fault(kind="malformed", after=2),)) as server:
        found = await heard(server)
        with pytest.raises(json.JSONDecodeError):
            json.loads(found[3])
        assert json.loads(found[4])["choices"][0]["finish_reason"] == "stop"
        async with asking(server, ASKED) as reply:
            assert reply.status == 200
            with pytest.raises(json.JSONDecodeError):
                await reply.json()


@pytest.mark.parametrize(
    ("kind", "error"), [("reset", ConnectionResetError), ("cut", asyncio.IncompleteReadError)]
)
async def test_a_connection_ends_in_the_middle_by_rst_or_by_fin(kind: Any, error: type[Exception]) -> None:
    async with simulated(faults=(Fault(kind=kind, after=3),)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(question(STREAM))
        with pytest.raises(error):
            await reader.readuntil(b"[DONE]")
        writer.close()
        assert server.unfinished == 0
        async with asking(server, STREAM) as reply:
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()


@pytest.mark.parametrize("kind", ["reset", "cut"])
async def test_a_connection_ends_before_a_whole_answer(kind: Any) -> None:
    async with simulated(faults=(Fault(kind=kind, after=3),)) as server:
        with pytest.raises(aiohttp.ClientError):
            await whole(server)


async def test_a_stream_hangs_after_n_frames_and_others_do_not() -> None:
    async with simulated(faults=(Fault(kind="hang", after=2, times=1),)) as server:
        async with asking(server, STREAM) as reply:
            frames = payloads(reply)
            got = [await anext(frames) for _ in range(3)]
            assert text(await heard(server)).startswith(text(got))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(frames), 0.1)
        assert server.unfinished == 0


async def test_a_silent_server_accepts_and_does_not_even_send_a_status() -> None:
    async with simulated(faults=(Fault(kind="silent", times=1),)) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await heard(server)
        assert text(await heard(server))


async def test_a_frozen_model_makes_no_progress_while_health_stays_200() -> None:
    async with simulated() as server:
        server.obey(Order(frozen=True))
        async with asking(server, STREAM) as reply:
            assert reply.status == 200
            before = await metric(server, "vllm:iteration_tokens_total_count")
            await asyncio.sleep(0.05)
            assert (await page(server, "/health"))[0] == 200
            assert await metric(server, "vllm:iteration_tokens_total_count") == before
            assert server.unfinished == 1
            server.obey(Order(frozen=False))
            assert [payload async for payload in payloads(reply)][-1] == b"[DONE]"


async def test_a_slow_server_is_overtaken_by_one_that_began_later() -> None:
    async with simulated(HELD) as slow, simulated(HELD) as usual:
        slow.obey(Order(slow=10.0))
        first = asyncio.create_task(heard(slow, STREAM | {"max_tokens": 5}))
        await eventually(lambda: slow.unfinished == 1)
        second = await heard(usual, STREAM | {"max_tokens": 5})
        assert not first.done()
        assert text(await first) == text(second)


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_dead_server_refuses_connections_and_lives_again_on_its_port(over_http: bool) -> None:
    async with simulated() as server, asking_frozen(server) as reply:
        if over_http:
            assert (await ordered(server, {"do": "die"}))[0] == 200
        else:
            server.obey(Order(do="die"))
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
        with pytest.raises(aiohttp.ClientConnectorError):
            await page(server, "/health")
        await server.start()
        server.obey(Order(frozen=False))
        assert (await heard(server))[-1] == b"[DONE]"
        assert server.unfinished == 0


async def test_orders_come_in_over_http_and_wrong_ones_are_refused() -> None:
    async with simulated() as server:
        status, told = await ordered(server, {"fault": {"kind": "status", "status": 503, "times": 1}})
        assert (status, told["pid"], told["unfinished"]) == (200, os.getpid(), 0)
        async with asking(server, ASKED) as reply:
            assert reply.status == 503
        assert (await ordered(server, {"faults": []}))[0] == 400
        assert (await ordered(server, {"do": "explode"}))[0] == 400


async def test_by_default_sigterm_ends_running_streams_with_an_error_and_done_under_200() -> None:
    async with simulated() as server, asking_frozen(server) as reply:
        server.obey(Order(do="abort_all"))
        rest = [payload async for payload in payloads(reply)]
        assert json.loads(rest[-2])["error"]["code"] == 500
        assert rest[-1] == b"[DONE]"
        assert server.stopped.is_set()
        with pytest.raises(aiohttp.ClientConnectorError):
            await page(server, "/health")


async def test_a_draining_server_finishes_what_runs_and_answers_500_to_what_is_new() -> None:
    async with simulated() as server:
        told = text(await heard(server))
        async with asking_frozen(server) as reply:
            server.obey(Order(do="drain", seconds=30))
            async with asking(server, ASKED) as refused:
                assert refused.status == 500
                assert "after shutdown" in (await refused.json())["error"]["message"]
            assert (await page(server, "/health"))[0] == 200
            server.obey(Order(frozen=False))
            assert text([payload async for payload in payloads(reply)]) == told
        await asyncio.wait_for(server.stopped.wait(), 5)


async def test_a_drain_that_takes_too_long_ends_as_an_abort() -> None:
    async with simulated() as server, asking_frozen(server) as reply:
        server.obey(Order(do="drain", seconds=0.05))
        rest = [payload async for payload in payloads(reply)]
        assert json.loads(rest[-2])["error"]
        assert server.unfinished == 0


@pytest.mark.parametrize("do", ["stale", "half_close"])
async def test_a_stale_connection_ends_when_it_is_used_again(do: Act) -> None:
    async with simulated() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        server.obey(Order(do=do))
        await asyncio.sleep(0.01)
        assert reader.at_eof() == (do == "half_close")
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert (await page(server, "/health"))[0] == 200


async def test_a_server_that_was_stopped_says_that_it_was_late_and_does_not_catch_up() -> None:
    now = [0.0]
    server = Replica(HELD, clock=lambda: now[0])
    await server.start()
    async with asking(server, STREAM | {"max_tokens": 4}) as reply:
        frames = payloads(reply)
        await anext(frames)
        now[0] = 100.0
        assert [payload async for payload in frames][-1] == b"[DONE]"
    assert (server.counts.steps, server.counts.late_steps) == (4, 1)
    await server.aclose()
