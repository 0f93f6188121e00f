"""The simulated LLM server: its wire form, its answers, and every knob, over real sockets."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from loadtests.running import Server, fetched
from loadtests.simulated_batching import presets
from loadtests.simulated_faults import Act, Fault, Order
from loadtests.simulated_llm import chosen, options, replicas, simulated
from loadtests.simulated_metrics import Lateness
from loadtests.simulated_replica import Replica
from tests.fakes import eventually

QUICK = presets()["quick"]
HELD = msgspec.structs.replace(QUICK, step_ms=20)
ASKED = {"messages": [{"role": "user", "content": "Which port does the LLM server listen on?"}]}
STREAM = ASKED | {"stream": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def asking(
    server: Replica, body: dict[str, Any], **headers: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as session, chat(session, server, body, **headers) as reply:
        yield reply


def chat(session: aiohttp.ClientSession, server: Replica, body: dict[str, Any], **headers: str) -> Any:
    return session.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)


async def payloads(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The SSE payloads, [DONE] too."""
    async for line in reply.content:
        if line.startswith(b"data: "):
            yield line[6:].strip()


async def heard(server: Replica, body: dict[str, Any] = STREAM) -> list[bytes]:
    async with asking(server, body) as reply:
        assert reply.status == 200
        return [payload async for payload in payloads(reply)]


def delta(payload: bytes) -> str:
    choices = json.loads(payload)["choices"]
    return str(choices[0]["delta"].get("content", "")) if choices else ""


def text(found: list[bytes]) -> str:
    return "".join(delta(payload) for payload in found if payload != b"[DONE]" and b'"error"' not in payload)


async def whole(server: Replica, body: dict[str, Any] = ASKED) -> dict[str, Any]:
    async with asking(server, body) as reply:
        found: dict[str, Any] = await reply.json()
        return found


async def page(server: Replica, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(server.url + path) as reply:
        return reply.status, await reply.text()


async def metric(server: Replica, name: str) -> float:
    found = re.search(rf"^{re.escape(name)}{{.*?}} (\S+)$", (await page(server, "/metrics"))[1], re.MULTILINE)
    assert found, name
    return float(found[1])


async def test_a_stream_begins_with_the_role_and_ends_with_a_reason_usage_and_done() -> None:
    async with simulated() as server:
        found = await heard(server)
    first, *_, last, usage, done = found
    assert json.loads(first)["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert json.loads(last)["choices"][0]["finish_reason"] == "stop"
    assert json.loads(usage)["choices"] == []
    # the token that ends the answer counts too, and is the one without text
    assert json.loads(usage)["usage"]["completion_tokens"] == len(found) - 3
    assert done == b"[DONE]"


async def test_the_answer_follows_from_the_messages_alone_streamed_or_not() -> None:
    async with simulated() as one, simulated() as other:
        told = await whole(one)
        assert told["choices"][0]["message"]["content"] == text(await heard(other))
        changed = {"messages": [{"role": "user", "content": "Another question?"}]}
        assert (await whole(one, changed))["choices"] != told["choices"]
        assert one.counts.finished == 2
        assert one.unfinished == 0


@pytest.mark.parametrize("cut", [0, 1, 17, 40, -1, 10_000])
async def test_a_continued_answer_goes_on_exactly_where_the_prefix_ends(cut: int) -> None:
    async with simulated() as one, simulated() as other:
        told = text(await heard(one))
        said = told[:cut]
        messages = [*ASKED["messages"], {"role": "assistant", "content": said}]
        asked = STREAM | {
            "messages": messages,
            "continue_final_message": True,
            "add_generation_prompt": False,
        }
        assert said + text(await heard(other, asked)) == told
        assert other.counts.foreign == 0


async def test_a_prefix_that_was_never_said_is_counted_and_goes_on_otherwise() -> None:
    async with simulated() as server:
        messages = [*ASKED["messages"], {"role": "assistant", "content": "Not what it said"}]
        asked = STREAM | {
            "messages": messages,
            "continue_final_message": True,
            "add_generation_prompt": False,
        }
        assert text(await heard(server, asked)) not in text(await heard(server))
        assert server.counts.foreign == 1


async def test_max_tokens_cuts_the_answer_and_ignore_eos_fills_it() -> None:
    async with simulated() as server:
        told = (await whole(server))["choices"][0]["message"]["content"]
        short = await whole(server, ASKED | {"max_tokens": 5})
        assert short["choices"][0]["finish_reason"] == "length"
        assert told.startswith(short["choices"][0]["message"]["content"])
        assert short["usage"]["completion_tokens"] == 5
        full = await whole(server, ASKED | {"max_tokens": 300, "ignore_eos": True})
        assert full["usage"]["completion_tokens"] == 300
        assert full["choices"][0]["message"]["content"].startswith(told)


async def test_tokens_share_a_frame_when_the_stream_interval_says_so() -> None:
    async with simulated(msgspec.structs.replace(QUICK, stream_interval=4)) as fourth, simulated() as single:
        some, all_of_them = await heard(fourth), await heard(single)
        assert text(some) == text(all_of_them)
        assert len(some) < len(all_of_them) / 2


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (ASKED | {"model": "other"}, 404, "does not exist"),
        (ASKED | {"max_tokens": 9000}, 400, "maximum context length"),
        ({"messages": []}, 400, "empty"),
        ({"messages": "x"}, 400, "messages"),
        (ASKED | {"continue_final_message": True}, 400, "add_generation_prompt"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_vllms_envelope(
    body: dict[str, Any], status: int, said: str
) -> None:
    async with simulated() as server, asking(server, body) as reply:
        error = (await reply.json())["error"]
        assert (reply.status, error["code"]) == (status, status)
        assert said in error["message"]


async def test_the_request_id_comes_back_in_the_header_and_in_the_answer() -> None:
    async with simulated() as server, asking(server, ASKED, **{"X-Request-Id": "abc"}) as reply:
        assert reply.headers["x-request-id"] == "abc"
        assert (await reply.json())["id"] == "chatcmpl-abc"
        assert server.heard[-1].headers["x-request-id"] == "abc"


async def test_vllms_metrics_are_told_under_their_names() -> None:
    async with simulated() as server:
        used = (await whole(server))["usage"]
        said = (await page(server, "/metrics"))[1]
        assert await metric(server, "vllm:generation_tokens_total") == used["completion_tokens"]
        assert await metric(server, "vllm:prompt_tokens_total") == used["prompt_tokens"]
        assert await metric(server, "vllm:iteration_tokens_total_count") == server.counts.steps
        assert await metric(server, "vllm:time_to_first_token_seconds_count") == 1
        assert (
            'vllm:request_success_total{engine="0",model_name="simulated",finished_reason="stop"} 1.0' in said
        )
        assert await metric(server, "vllm:num_requests_running") == 0
        assert await metric(server, "simulated_step_lateness_seconds") >= 0


async def test_models_and_health_are_served_and_nothing_else() -> None:
    async with simulated() as server:
        status, said = await page(server, "/v1/models")
        assert (status, json.loads(said)["data"][0]["id"]) == (200, "simulated")
        assert (await page(server, "/health"))[0] == 200
        assert (await page(server, "/nothing"))[0] == 404


async def test_a_common_prefix_is_computed_once() -> None:
    async with simulated() as server:
        long = {"role": "system", "content": "Say what the passages say. " * 40}
        used = []
        for question in ("One?", "Two?"):
            asked = {"messages": [long, {"role": "user", "content": question}]}
            used.append((await whole(server, asked))["usage"])
        assert used[0]["prompt_tokens_details"]["cached_tokens"] == 0
        assert used[1]["prompt_tokens_details"]["cached_tokens"] > 200


async def test_more_than_it_may_queue_is_refused_with_503_and_no_retry_after() -> None:
    async with simulated(HELD, max_num_queued=1) as server, asking(server, STREAM) as running:
        assert running.status == 200
        async with asking(server, ASKED) as reply:
            assert reply.status == 503
            assert "Retry-After" not in reply.headers
        assert server.counts.rejected == 1
        assert 'reason="max_num_queued_reqs"} 1.0' in (await page(server, "/metrics"))[1]


async def test_a_caller_who_hangs_up_frees_what_it_held() -> None:
    async with simulated(HELD) as server:
        async with asking(server, STREAM) as reply:
            await anext(payloads(reply))
            assert await metric(server, "vllm:kv_cache_usage_perc") > 0
            reply.close()
        await eventually(lambda: server.unfinished == 0)
        assert server.counts.left == 1
        assert await metric(server, "vllm:num_requests_running") == 0
        assert await metric(server, "vllm:kv_cache_usage_perc") == 0


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


def question(body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)


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


async def test_a_slow_server_multiplies_the_time_of_a_step() -> None:
    async with simulated(HELD) as server:
        loop = asyncio.get_running_loop()
        server.obey(Order(slow=5.0))
        async with asking(server, STREAM) as reply:
            frames = payloads(reply)
            began = loop.time()
            for _ in range(3):
                await anext(frames)
            # two steps of five times 20 ms lie between asking and the second text
            assert loop.time() - began >= 0.15


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_dead_server_refuses_connections_and_lives_again_on_its_port(over_http: bool) -> None:
    async with simulated(HELD) as server, asking(server, STREAM) as reply:
        if over_http:
            assert (await ordered(server, {"do": "die"}))[0] == 200
        else:
            server.obey(Order(do="die"))
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
        with pytest.raises(aiohttp.ClientConnectorError):
            await page(server, "/health")
        await server.start()
        assert (await page(server, "/health"))[0] == 200
        assert server.unfinished == 0


async def ordered(server: Replica, order: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.url + "/control", json=order) as reply,
    ):
        return reply.status, await reply.json()


async def test_orders_come_in_over_http_and_wrong_ones_are_refused() -> None:
    async with simulated() as server:
        status, told = await ordered(server, {"fault": {"kind": "status", "status": 503, "times": 1}})
        assert (status, told["pid"], told["unfinished"]) == (200, os.getpid(), 0)
        async with asking(server, ASKED) as reply:
            assert reply.status == 503
        assert (await ordered(server, {"faults": []}))[0] == 400
        assert (await ordered(server, {"do": "explode"}))[0] == 400


async def test_by_default_sigterm_ends_running_streams_with_an_error_and_done_under_200() -> None:
    async with simulated(HELD) as server, asking(server, STREAM) as reply:
        frames = payloads(reply)
        await anext(frames)
        server.obey(Order(do="abort_all"))
        rest = [payload async for payload in frames]
        assert json.loads(rest[-2])["error"]["code"] == 500
        assert rest[-1] == b"[DONE]"
        assert server.stopped.is_set()
        with pytest.raises(aiohttp.ClientConnectorError):
            await page(server, "/health")


async def test_a_draining_server_finishes_what_runs_and_answers_500_to_what_is_new() -> None:
    async with simulated(HELD) as server:
        told = text(await heard(server))
        async with asking(server, STREAM) as reply:
            server.obey(Order(do="drain", seconds=30))
            async with asking(server, ASKED) as refused:
                assert refused.status == 500
                assert "after shutdown" in (await refused.json())["error"]["message"]
            assert (await page(server, "/health"))[0] == 200
            assert text([payload async for payload in payloads(reply)]) == told
        await asyncio.wait_for(server.stopped.wait(), 5)


async def test_a_drain_that_takes_too_long_ends_as_an_abort() -> None:
    async with simulated(HELD) as server, asking(server, STREAM) as reply:
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


async def test_idle_connections_are_closed_and_busy_ones_are_not() -> None:
    async with simulated(HELD, keep_alive=0.0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert (await heard(server))[-1] == b"[DONE]"


async def test_requests_on_one_connection_are_answered_in_turn() -> None:
    async with simulated() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(question(STREAM) + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = await reader.read()
        assert told.index(b"[DONE]") < told.index(b"content-length: 0")
        writer.close()


def test_a_step_counts_as_late_beyond_a_tenth_of_its_time() -> None:
    lateness = Lateness()
    assert not lateness.note(0.0019, 0.020)
    assert lateness.note(0.0021, 0.020)
    assert not lateness.note(0.0009, 0.005)
    assert lateness.percentile(1.0) == 0.0021


def test_a_preset_is_changed_on_the_command_line() -> None:
    preset = chosen(options(["--preset", "quick", "--set", "step_ms=7.5", "max_num_seqs=3"]))
    assert (preset.step_ms, preset.max_num_seqs) == (7.5, 3)
    with pytest.raises(msgspec.ValidationError):
        chosen(options(["--set", "no_such_field=1"]))


def test_every_preset_names_its_source() -> None:
    assert all(preset.source for preset in presets().values())


def test_replicas_are_processes_that_can_be_stopped_and_killed_one_by_one() -> None:
    with replicas(2, "--preset", "quick", "--shutdown-timeout", "5") as (first, second):
        assert told(first)["pid"] == first.process.pid != told(second)["pid"]
        first.process.suspend()
        with pytest.raises(TimeoutError):
            status(first, timeout=0.2)
        first.process.resume()
        assert status(first, timeout=10) == 200
        first.process.kill()
        first.process.wait(10)
        with pytest.raises(ConnectionError):
            status(first, timeout=10)
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(10) in (0, None)


def told(server: Server) -> Any:
    return json.loads(fetched("GET", server.url, "/control")[1])


def status(server: Server, timeout: float) -> int:
    address = urlsplit(server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()
