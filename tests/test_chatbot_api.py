"""The chatbot: its events, its conversations, and the exchanges that readers open."""

from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.fakes import FakeLlm, FixedShelf
from tests.stack import PORTS, running_stack


async def post(url: str, **fields: Any) -> Any:
    async with aiohttp.ClientSession() as session, session.post(url, json=fields) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def get(url: str, **headers: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as reply:
        assert reply.status == 200
        return await reply.json() if reply.content_type == "application/json" else await reply.text()


async def events(url: str, **fields: Any) -> list[tuple[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={**fields, "stream": True}) as reply,
    ):
        assert reply.status == 200
        blocks = [block.split("\n") for block in (await reply.text()).split("\n\n") if block]
    return [(name.removeprefix("event: "), msgspec.json.decode(said[6:])) for name, said in blocks]


async def test_a_streamed_answer_brings_passages_then_deltas_then_the_whole(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        heard = await events(f"{stack.url}/chat", message="Which port?")
    names = [name for name, _ in heard]
    assert names[0] == "passages"
    assert names[-1] == "answer"
    assert set(names[1:-1]) == {"delta"}
    opening, closing = heard[0][1], heard[-1][1]
    assert opening["passages"][0]["text"] == PORTS.chunk.text
    assert opening["passages"][0]["marker"] == 1
    assert "".join(said["text"] for name, said in heard if name == "delta") == closing["answer"]
    assert closing["tandem"]["citations"][0]["marker"] == 1
    assert closing["conversation"] == opening["conversation"]


async def test_a_failure_in_the_middle_is_an_error_event(tmp_path: Path) -> None:
    llm = FakeLlm(pieces=["The ", "port "])
    llm.die_after(1)
    with running_stack(tmp_path, llm) as stack:
        heard = await events(f"{stack.url}/chat", message="Which port?")
    name, said = heard[-1]
    assert name == "error"
    assert said["error"]["code"] == "upstream_unavailable"
    assert said["tandem"]["outcome"] == "failed"


async def test_a_conversation_is_remembered_and_others_are_not_mixed_in(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        first = await post(f"{stack.url}/chat", message="Which port?")
        await post(f"{stack.url}/chat", message="Something else?")
        await post(f"{stack.url}/chat", message="Can I change it?", conversation=first["conversation"])
        sent = stack.llm.requests[-1].body["messages"]
    assert [m["content"] for m in sent[1:-1]] == ["Which port?", "It listens on port 8001 [1]."]


async def test_nothing_found_says_so_and_is_recorded_as_abstained(tmp_path: Path) -> None:
    with running_stack(tmp_path, shelf=FixedShelf()) as stack:
        answered = await post(f"{stack.url}/chat", message="What is love?")
    assert answered["tandem"]["outcome"] == "abstained"
    assert answered["tandem"]["citations"] == []


async def test_exchanges_are_listed_newest_first_and_opened_whole(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        for number in range(3):
            await post(f"{stack.url}/chat", message=f"Question {number}?")
        listed = await get(f"{stack.url}/exchanges?limit=2")
        rest = await get(f"{stack.url}/exchanges?limit=2&before={listed['next']}")
        one = await get(f"{stack.url}/exchanges/{listed['exchanges'][0]['id']}")
        found = await get(f"{stack.url}/exchanges?text=Question%201")
    assert [e["question"] for e in listed["exchanges"]] == ["Question 2?", "Question 1?"]
    assert [e["question"] for e in rest["exchanges"]] == ["Question 0?"]
    assert rest["next"] is None
    assert [e["question"] for e in found["exchanges"]] == ["Question 1?"]
    assert one["passages"][0]["chunk"]["text"] == PORTS.chunk.text
    assert "Question 2?" in one["prompt"]["messages"][-1]["content"]
    assert one["answer"] == "It listens on port 8001 [1]."
    assert one["timings_ms"]["total"] > 0


async def test_feedback_is_kept_for_an_exchange_that_exists(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        answered = await post(f"{stack.url}/chat", message="Which port?")
        url = f"{stack.url}/exchanges/{answered['tandem']['exchange']}/feedback"
        assert (await post(url, rating="up", comment="yes"))["rating"] == "up"
        async with aiohttp.ClientSession() as session:
            async with session.post(url, json={"rating": "sideways"}) as reply:
                assert reply.status == 400
            async with session.post(
                url.replace("/exchanges/", "/exchanges/no"), json={"rating": "up"}
            ) as reply:
                assert reply.status == 404


async def test_browsers_get_pages_that_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/exchanges", "/exchanges/x"):
                async with session.get(stack.url + path, headers={"Accept": "text/html"}) as reply:
                    assert reply.status == 200
                    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
