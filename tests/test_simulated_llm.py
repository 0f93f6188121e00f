"""The simulated LLM server speaks as vLLM does, over real sockets."""

import asyncio
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from loadtests.running import ROOT, Server, fetched, waited_for
from loadtests.simulated_faults import Order
from loadtests.simulated_llm import replicas, simulated
from tests.fakes import eventually
from tests.simulated_asking import (
    ASKED,
    HELD,
    QUICK,
    STREAM,
    asking,
    asking_frozen,
    heard,
    metric,
    page,
    payloads,
    question,
    text,
    whole,
)


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
    async with simulated(max_num_queued=1) as server, asking_frozen(server):
        async with asking(server, ASKED) as reply:
            assert reply.status == 503
            assert "Retry-After" not in reply.headers
        assert server.counts.rejected == 1
        assert 'reason="max_num_queued_reqs"} 1.0' in (await page(server, "/metrics"))[1]


async def test_a_caller_who_hangs_up_frees_what_it_held() -> None:
    async with simulated(HELD) as server:
        async with asking(server, STREAM) as reply:
            await anext(payloads(reply))
            server.obey(Order(frozen=True))
            assert await metric(server, "vllm:kv_cache_usage_perc") > 0
            reply.close()
        await eventually(lambda: server.unfinished == 0)
        assert server.counts.left == 1
        assert await metric(server, "vllm:num_requests_running") == 0
        assert await metric(server, "vllm:kv_cache_usage_perc") == 0


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


def test_the_command_starts_replicas_prints_their_urls_and_drains_them_at_sigterm() -> None:
    command = [sys.executable, "-m", "loadtests.simulated_llm", "--preset", "quick", "--replicas", "2"]
    with subprocess.Popen([*command, "--shutdown-timeout", "5"], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        urls = [parent.stdout.readline().strip().decode() for _ in range(2)]
        slow = msgspec.json.encode(Order(slow=20))
        assert fetched("POST", urls[0], "/control", slow)[0] == 200
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(fetched, "POST", urls[0], "/v1/chat/completions", msgspec.json.encode(ASKED))
            waited_for(lambda: json.loads(fetched("GET", urls[0], "/control")[1])["unfinished"] == 1)
            parent.terminate()
            assert asked.result()[0] == 200
        assert parent.wait(10) == 0
        for url in urls:
            with pytest.raises(ConnectionError):
                fetched("GET", url, "/health")


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
