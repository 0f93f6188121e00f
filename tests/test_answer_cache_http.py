"""Kept answers on the wire: what callers, records, limits and metrics are told of an answer given before."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from business_api.assistants import Assistant, Assistants
from business_api.exchange import Outcome
from tests.fakes import FakeLlm, eventually, serving
from tests.programs import run, serving_program
from tests.stack import PORTS, TEMPLATE, Stack, running_stack

KEEPING = Assistants(
    [
        Assistant(name="tandem", collection="kb", template=TEMPLATE, cache_seconds=600),
        Assistant(name="plain", max_tokens=1000, cache_seconds=600),
    ]
)
ASKED = [{"role": "user", "content": "Which port?"}]


async def ask(stack: Stack, path: str = "/v1/chat/completions", **fields: Any) -> tuple[Any, Any]:
    """Body, and headers, of an answer; the frames of a stream are put together by `text_of`."""
    wire = {"model": "tandem", "messages": ASKED} if path.startswith("/v1") else {"message": "Which port?"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.url + path, json=wire | fields) as reply,
    ):
        assert reply.status == 200, await reply.text()
        whole = await reply.text()
        return json.loads(whole) if reply.content_type == "application/json" else whole, reply.headers


def frames(stream: str) -> list[Any]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]


def text_of(stream: str) -> str:
    choices = [choice for frame in frames(stream) for choice in frame["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def metric(stack: Stack, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def test_the_text_given_again_is_the_same_whole_and_streamed_and_its_quotes_are_verbatim(
    tmp_path: Path,
) -> None:
    said = "It listens on port 8001 [1]. " + "Nothing else listens there. " * 20
    with running_stack(tmp_path, FakeLlm(said), assistants=KEEPING) as stack:
        first, _ = await ask(stack)
        again, _ = await ask(stack)
        streamed, _ = await ask(stack, stream=True, stream_options={"include_usage": True})
        assert len(stack.llm.requests) == 1
    text = first["choices"][0]["message"]["content"]
    assert again["choices"] == first["choices"]
    assert text_of(streamed) == text
    assert streamed.count("data: [DONE]") == 1
    assert 3 < len(frames(streamed)) < 20
    last = frames(streamed)[-1]
    for given in (again, last):
        assert given["usage"] == first["usage"]
        assert given["tandem"]["cached"]["exchange"] == first["tandem"]["exchange"]
        assert given["tandem"]["versions"] == first["tandem"]["versions"]
        assert given["tandem"]["citations"] == first["tandem"]["citations"] != []
        assert set(given["tandem"]["timings_ms"]) == {"cache", "total"}
        for citation in given["tandem"]["citations"]:
            assert PORTS.chunk.text[citation["start"] : citation["end"]] == citation["quote"]
    assert "cached" not in first["tandem"]


async def test_a_streamed_answer_is_kept_like_a_whole_one_and_the_chat_api_shares_it(tmp_path: Path) -> None:
    with running_stack(tmp_path, assistants=KEEPING) as stack:
        streamed, _ = await ask(stack, stream=True)
        whole, headers = await ask(stack)
        chat, _ = await ask(stack, path="/chat")
        events, _ = await ask(stack, path="/chat", stream=True)
        assert len(stack.llm.requests) == 1
    assert whole["choices"][0]["message"]["content"] == text_of(streamed) == chat["answer"]
    assert "cache;dur=" in headers["Server-Timing"]
    assert chat["passages"][0]["text"] == PORTS.chunk.text
    assert chat["tandem"]["cached"]["exchange"] == frames(streamed)[-1]["tandem"]["exchange"]
    assert events.count("event: delta") == 1
    assert events.count("event: answer") == 1


async def test_the_record_of_an_answer_given_again_is_complete(tmp_path: Path) -> None:
    with running_stack(tmp_path, assistants=KEEPING) as stack:
        for _ in range(2):
            await ask(stack, path="/chat", tandem={"explain": True})
        first, again = stack.recorded()
    assert again.outcome is Outcome.ANSWERED
    assert again.question.text == "Which port?"
    for name in ("answer", "citations", "passages", "prompt", "query", "versions", "usage", "finish_reason"):
        assert getattr(again, name) == getattr(first, name), name
    assert again.cached is not None
    assert again.cached.exchange == first.id
    assert first.cached is None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])
async def test_a_caller_may_have_its_question_answered_anew(tmp_path: Path, path: str) -> None:
    with running_stack(tmp_path, assistants=KEEPING) as stack:
        await ask(stack, path)
        anew, _ = await ask(stack, path, tandem={"cache": False})
        again, _ = await ask(stack, path)
        assert len(stack.llm.requests) == 2
    assert "cached" not in anew["tandem"]
    assert again["tandem"]["cached"]["exchange"] == anew["tandem"]["exchange"]


async def test_an_answer_given_again_spends_a_request_and_no_tokens(tmp_path: Path) -> None:
    with running_stack(tmp_path, assistants=KEEPING, requests_per_minute=100, tokens_per_day=5000) as stack:
        _, first = await ask(stack, model="plain")
        for _ in range(5):
            _, again = await ask(stack, model="plain")
        assert stack.guard.limits.reserved == set()
    remaining = "x-ratelimit-remaining-"
    assert int(again[f"{remaining}requests"]) == int(first[f"{remaining}requests"]) - 5
    assert again[f"{remaining}tokens-day"] == first[f"{remaining}tokens-day"]


async def test_metrics_tell_hits_misses_and_memory_and_count_tokens_once(tmp_path: Path) -> None:
    with running_stack(tmp_path, assistants=KEEPING) as stack:
        first, _ = await ask(stack)
        await ask(stack)
        await ask(stack, tandem={"cache": False})
        counted = {
            of: await metric(stack, f'tandem_answer_cache_total{{found="{of}"')
            for of in ("hit", "miss", "bypass")
        }
        assert counted == {"hit": 1, "miss": 1, "bypass": 1}
        assert 1000 < await metric(stack, "tandem_answer_cache_bytes") < 10_000
        assert await metric(stack, "tandem_tokens_total") == 2 * first["usage"]["total_tokens"]
        assert await metric(stack, "tandem_exchanges_total{") == 3
        assert await metric(stack, 'tandem_stage_seconds_count{stage="ttft"}') == 2


async def test_without_an_assistant_that_wants_it_there_are_no_metrics_of_kept_answers(
    tmp_path: Path,
) -> None:
    with running_stack(tmp_path) as stack:
        await ask(stack)
        answered, _ = await ask(stack)
        assert await metric(stack, "tandem_answer_cache") == 0
    assert "cache" not in answered["tandem"]["timings_ms"]


async def test_callers_who_hang_up_in_an_answer_given_again_are_each_recorded_once(tmp_path: Path) -> None:
    with running_stack(
        tmp_path, FakeLlm(pieces=["word " * 10_000] * 10), assistants=KEEPING, requests_per_minute=None
    ) as stack:
        await ask(stack, model="plain")
        for _ in range(10):
            async with aiohttp.ClientSession(read_bufsize=1024) as session:
                body = {"model": "plain", "messages": ASKED, "stream": True}
                async with session.post(f"{stack.url}/v1/chat/completions", json=body) as reply:
                    await reply.content.readany()
        await eventually(lambda: len(stack.recorded()) == 11)
        again = stack.recorded()[1:]
        assert stack.gate.running == 0
    assert all(one.cached is not None for one in again)
    assert {one.outcome for one in again} <= {Outcome.ANSWERED, Outcome.ABANDONED}


async def test_the_key_of_the_caller_is_checked_before_anything_is_given(tmp_path: Path) -> None:
    with running_stack(tmp_path, assistants=KEEPING) as stack:
        await ask(stack)
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer tdm_wrong"}) as session:
            body = {"model": "tandem", "messages": ASKED}
            async with session.post(f"{stack.url}/v1/chat/completions", json=body) as reply:
                assert reply.status == 401


def test_a_service_keeps_answers_as_its_assistants_and_settings_say(tmp_path: Path) -> None:
    file, page, llm = tmp_path / "assistants.toml", tmp_path / "ports.md", FakeLlm("It is port 8001 [1].")
    file.write_text(
        '[tandem]\ncollection = "kb"\ntemplate = "answer_with_markers/v2"\ncache_seconds = 60\n'
        "[plain]\ncache_seconds = 60\n"
    )
    page.write_text("# Ports\n\nThe LLM server listens on port 8001.\n")
    assert run("ingest", str(page), var=tmp_path).returncode == 0
    own = {"BUSINESS_API_ASSISTANTS": str(file), "BUSINESS_API_ANSWER_CACHE_BYTES": "4000"}
    with serving(llm) as url, serving_program(tmp_path, f"{url}/v1", **own) as service:
        found = [service.chat("Which port?")[1]["tandem"] for _ in range(2)]
        assert found[1]["cached"]["exchange"] == found[0]["exchange"]
        assert found[1]["citations"] == found[0]["citations"] != []
        for number in range(6):
            service.chat(f"Which port of {number}?", assistant="plain")
        assert "cached" not in service.chat("Which port?")[1]["tandem"], "the memory is bounded"
