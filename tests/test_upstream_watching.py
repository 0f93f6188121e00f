"""Who is out, and comes in again: servers that hang, drain, come back, or are no longer in the name."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from business_api.errors import UpstreamUnavailable
from business_api.pool_settings import name_of
from business_api.settings import LlmSettings
from business_api.upstream import Upstream
from business_api.upstream.addresses import addresses_of
from business_api.upstream.pool import Address, Pool
from business_api.upstream.progress import Counters, read_counters
from business_api.upstream.watching import Watch
from tests.asgi_wire import Receive, Scope, Send, hang_up, respond
from tests.fakes import FakeLlm, eventually, serving
from tests.pools import NOBODY, PROMPT, SAID, heard, llm, pool_of, trail
from tests.reading import text_of

VLLM_PAGE = b"""
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 99.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 12.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 1.5e+03
vllm:iteration_tokens_total_count{engine="1",model_name="m"} 3.0
vllm:iteration_tokens_total_sum{engine="1",model_name="m"} 5.0
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
"""


def test_progress_is_read_from_the_counters_of_every_engine() -> None:
    assert read_counters(VLLM_PAGE) == Counters(steps=1520.0, running=3.0)
    llama = b"llamacpp:n_decode_total 41\nllamacpp:requests_processing 1\n"
    assert read_counters(llama) == Counters(steps=41.0, running=1.0)
    assert read_counters(b"process_cpu_seconds_total 4.5\n") is None
    assert read_counters(b"") is None


class Engine(FakeLlm):
    """A server whose model can be frozen while its HTTP side lives on; `/metrics` tells its steps."""

    def __init__(self, **knobs: Any) -> None:
        super().__init__(**knobs)
        self.frozen = False
        self.steps = 0
        self.mute = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/metrics":
            if self.mute:
                await asyncio.Event().wait()
            self.steps += not self.frozen
            page = (
                f"vllm:iteration_tokens_total_count {self.steps}\nvllm:num_requests_running {self.running}\n"
            )
            await respond(send, 200, page.encode(), content_type=b"text/plain")
            return
        await super().__call__(scope, receive, send)


class Mute(FakeLlm):
    """A server that takes requests and answers none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await hang_up(receive)
        else:
            await super().__call__(scope, receive, send)


QUICK = {"stall_deadline": 0.2, "probe_seconds": 0.05, "connect_deadline": 0.5, "probe_deadline": 1.0}


@pytest.mark.parametrize("mute", [False, True], ids=["no steps", "no word at all"])
async def test_who_waits_for_a_frozen_server_is_answered_by_another(mute: bool) -> None:
    frozen, well = Engine(pieces=["x"]), llm()
    frozen.frozen, frozen.mute = True, mute
    frozen.hang_before_first()
    async with pool_of(frozen, well, **QUICK, first_delta_deadline=60) as upstream:
        said, running = await heard(upstream)
        assert upstream.pool.out() == {"a": "it makes no progress"}
    assert said == SAID
    assert trail(running.attempts) == [("a", "stalled"), ("b", "answered")]


async def test_who_was_sent_to_a_frozen_server_that_is_out_is_answered_by_another_that_is_back() -> None:
    frozen, back = Engine(pieces=["x"]), llm()
    frozen.frozen = frozen.mute = True
    frozen.hang_before_first()
    back.fail_with(500, "no")
    async with pool_of(frozen, back, **QUICK, first_delta_deadline=60) as upstream, asyncio.timeout(20):
        for replica in upstream.pool.replicas:
            replica.eject("told to")
        asking = asyncio.create_task(heard(upstream))
        await eventually(lambda: frozen.running > 0)
        back.recover()
        said, _ = await asking
    assert said == SAID


async def test_an_answer_on_a_server_that_freezes_is_gone_on_with_by_another() -> None:
    freezing, well = Engine(pieces=["The", " port", " is", " 8001."], continues=True), llm()
    freezing.frozen = True
    freezing.hang_after(2)
    async with pool_of(freezing, well, **QUICK, delta_deadline=60) as upstream:
        said, running = await heard(upstream)
    assert said == SAID
    assert trail(running.attempts) == [("a", "stalled"), ("b", "answered")]


async def test_the_tier_is_ready_at_once_though_a_server_does_not_even_list_its_models() -> None:
    async with pool_of(Mute(), llm(), connect_deadline=60) as upstream, asyncio.timeout(20):
        assert await upstream.problem() is None


async def test_a_server_that_works_at_a_long_prompt_is_left_alone() -> None:
    busy = Engine(pieces=["x"], first_delay=1.0)
    async with pool_of(busy, llm(), **QUICK) as upstream:
        said, running = await heard(upstream)
        assert upstream.pool.out() == {}
    assert said == "x"
    assert trail(running.attempts) == [("a", "answered")]


async def test_a_server_that_is_out_comes_in_again_when_it_says_a_token() -> None:
    broken = llm()
    broken.fail_with(503, "cannot schedule new futures after shutdown")
    async with pool_of(broken, llm(), **QUICK) as upstream:
        await heard(upstream)
        assert upstream.pool.out() == {"a": "draining"}
        await asyncio.sleep(0.2)
        assert upstream.pool.out() == {"a": "draining"}  # it lists its model, but says nothing
        broken.recover()
        await eventually(lambda: not upstream.pool.out())
        assert (await heard(upstream))[0] == SAID


async def test_a_server_that_is_away_is_named_and_the_tier_is_ready_all_the_same() -> None:
    async with pool_of(NOBODY, llm()) as upstream:
        for _ in range(4):
            await heard(upstream)
        assert upstream.pool.out() == {"a": "unreachable"}
        assert await upstream.problem() is None
    async with pool_of(NOBODY, NOBODY) as upstream:
        problem = await upstream.problem()
    assert problem is not None
    assert "a: the LLM server cannot be reached; b: the LLM server cannot be reached" in problem


async def test_when_all_are_out_one_is_asked_all_the_same_and_its_answer_brings_it_in() -> None:
    broken = llm()
    broken.fail_with(503, "cannot schedule new futures after shutdown")
    async with pool_of(broken) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await heard(upstream)
        assert upstream.pool.out() == {"a": "draining"}
        broken.recover()
        assert (await heard(upstream))[0] == SAID
        assert upstream.pool.out() == {}


@asynccontextmanager
async def named(monkeypatch: pytest.MonkeyPatch, hosts: list[str]) -> AsyncIterator[None]:
    """A name server of our own, that answers with these hosts; none: it is away."""

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        if not hosts:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, 1, 6, "", (one, port)) for one in hosts]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    yield


async def test_every_address_of_a_name_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LlmSettings(url="http://llm.local:8001/v1", resolve_seconds=1)
    async with named(monkeypatch, ["10.0.0.2", "10.0.0.1", "10.0.0.2"]):
        found = await addresses_of(settings)
    assert [one.url for one in found] == ["http://10.0.0.1:8001/v1", "http://10.0.0.2:8001/v1"]


async def test_a_name_that_cannot_be_resolved_stops_the_start_and_changes_nothing_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = LlmSettings(url="http://llm.local:8001/v1", resolve_seconds=0.001)
    async with named(monkeypatch, []):
        with pytest.raises(UpstreamUnavailable, match="resolved"):
            await addresses_of(settings)
        pool = Pool.open([Address("http://10.0.0.1:8001/v1")], settings)
        watch = Watch(pool, settings)
        await asyncio.sleep(0.01)
        await watch.round()
        await eventually(lambda: "those known are kept" in caplog.text)
        assert [replica.name for replica in pool.replicas] == ["10.0.0.1:8001"]
        await pool.aclose()


async def test_a_resolver_that_hangs_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> None:
        asked.append(host)
        await asyncio.get_running_loop().create_future()

    with serving(llm()) as url:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        settings = LlmSettings(url=f"{url}/v1", resolve_seconds=0.001, probe_seconds=0.01)
        pool = Pool.open([Address(f"{url}/v1")], settings)
        pool.replicas[0].eject("as a test wants it")
        watching = asyncio.create_task(Watch(pool, settings).run())
        await eventually(lambda: pool.out() == {} and asked == ["127.0.0.1"])
        watching.cancel()
        await asyncio.wait([watching])
        await pool.aclose()


async def test_a_server_that_leaves_the_name_finishes_its_answers_first() -> None:
    leaving, coming = llm(delay=0.1), llm(pieces=["new"])
    with serving(leaving) as first, serving(coming) as second:
        settings = LlmSettings()
        pool = Pool.open([Address(f"{first}/v1")], settings)
        upstream = Upstream(pool, settings)
        running = await upstream.generate(PROMPT, {}, "id-1")
        pool.become([Address(f"{second}/v1")])
        assert (await heard(upstream))[0] == "new"
        assert await text_of(running) == SAID
        await running.aclose()
        await pool.aclose()


def test_a_server_is_named_without_its_credentials() -> None:
    assert name_of("https://user:secret@host:8443/v1") == "host:8443"
    assert name_of("asgi://llm_server.embedded:app") == "llm_server.embedded:app"
