"""Whatever comes in, the caller gets a clear error in the OpenAI envelope, and never a 500."""

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.fakes import FakeLlm
from tests.stack import Stack, running_stack

USER: Any = {"role": "user", "content": "Which port?"}
CALL: Any = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("var"), requests_per_minute=100_000) as running:
        yield running


async def post(
    stack: Stack, body: bytes, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, dict[str, Any], Any]:
    """Status, error envelope and headers of a raw request body."""
    sent = {"Content-Type": "application/json", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.url + path, data=io.BytesIO(body), headers=sent) as reply,
    ):
        answered = msgspec.json.decode(await reply.read())
        return reply.status, answered.get("error", {}), reply.headers


def chat(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "tandem", "messages": [USER]} | fields)


WRONG_BODIES: dict[str, tuple[bytes, int, str | None]] = {
    "no messages": (b'{"model": "tandem"}', 400, None),
    "empty messages": (chat(messages=[]), 400, "messages"),
    "no model": (b'{"messages": []}', 400, None),
    "messages of the wrong type": (chat(messages="hello"), 400, "messages"),
    "content of the wrong type": (
        chat(messages=[{"role": "user", "content": 5}]), 400, "messages[0].content",
    ),
    "no content": (chat(messages=[{"role": "user"}]), 400, "messages"),
    "only blanks": (chat(messages=[{"role": "user", "content": " \n"}]), 400, "messages"),
    "unknown role": (chat(messages=[{"role": "wizard", "content": "x"}]), 400, "messages[0].role"),
    "unknown assistant": (chat(model="nobody"), 404, "model"),
    "unknown field": (chat(web_search_options={}), 400, "web_search_options"),
    "unknown field of a message": (chat(messages=[USER | {"mood": "x"}]), 400, "messages[0].mood"),
    "n of 2": (chat(n=2), 400, "n"),
    "temperature of 3": (chat(temperature=3), 400, "temperature"),
    "negative max_tokens": (chat(max_tokens=-1), 400, "max_tokens"),
    "five stops": (chat(stop=list("abcde")), 400, "stop"),
    "functions, long deprecated": (chat(functions=[]), 400, "functions"),
    "audio output": (chat(modalities=["audio"]), 400, "modalities[0]"),
    "NaN": (chat().replace(b"}]", b'}],"temperature":NaN', 1), 400, None),
    "Infinity": (chat().replace(b"}]", b'}],"temperature":Infinity', 1), 400, None),
    "a number beyond floats": (chat().replace(b"}]", b'}],"temperature":1e999', 1), 400, None),
    "a lone surrogate": (b'{"model":"tandem","messages":[{"role":"user","content":"\\ud800"}]}', 400, None),
    "invalid UTF-8": (b'{"model":"tandem","messages":[{"role":"user","content":"\xff\xfe"}]}', 400, None),
    "a raw control character": (
        b'{"model":"tandem","messages":[{"role":"user","content":"\x01"}]}', 400, None,
    ),
    "an escaped control character": (
        chat(messages=[{"role": "user", "content": "a\x00b"}]), 400, "messages[0].content",
    ),
    "not JSON": (b"hello", 400, None),
    "nothing": (b"", 400, None),
    "a list": (b"[]", 400, None),
    "deep nesting": (b'{"messages":' + b"[" * 100_000, 400, None),
    "deep nesting in a free field": (
        chat().replace(b"}]", b'}],"tools":' + b'[{"a":' * 50_000, 1), 400, None,
    ),
    "10 MB": (chat(messages=[{"role": "user", "content": "x" * 10_000_000}]), 413, None),
    "a question of a million characters": (
        chat(messages=[{"role": "user", "content": "x" * 1_000_000}]), 400, "messages",
    ),
    "a tool message without its call": (
        chat(messages=[USER, {"role": "tool", "content": "x", "tool_call_id": "c9"}]),
        400, "messages[1].tool_call_id",
    ),
    "a tool call without its answer": (
        chat(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}, USER]),
        400, "messages[1].tool_calls",
    ),
    "an image": (
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        400, "messages[0].content[0]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "param"), WRONG_BODIES.values(), ids=WRONG_BODIES.keys())
async def test_a_wrong_body_gets_a_clear_error_that_names_the_field(
    stack: Stack, body: bytes, status: int, param: str | None
) -> None:
    got, error, headers = await post(stack, body)
    assert got == status
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param
    assert headers["X-Request-Id"]


@pytest.mark.parametrize("body", [chat(), chat(stream=True)], ids=["whole", "stream"])
async def test_after_all_that_the_service_still_answers(stack: Stack, body: bytes) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            stack.url + "/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
        ) as reply,
    ):
        assert reply.status == 200
        assert "8001" in await reply.text()


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_content_type_is_refused(stack: Stack, media: str) -> None:
    status, error, _ = await post(stack, chat(), **{"Content-Type": media})
    assert status == 415
    assert "application/json" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"message": 5}', "message"),
        (b'{"message": "x", "conversation": "../etc"}', "conversation"),
        (b'{"message": "x", "assistant": "nobody"}', "model"),
        (b'{"message": ""}', "messages"),
        (b'{"message": "x", "mood": 1}', "mood"),
    ],
)
async def test_the_chat_endpoint_refuses_in_the_same_way(stack: Stack, body: bytes, param: str) -> None:
    status, error, _ = await post(stack, body, "/chat")
    assert status in (400, 404)
    assert error["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "letters", "input": []}',
        b'{"model": "letters", "input": [""]}',
        b'{"model": "letters", "input": [1, 2]}',
        b'{"model": "other", "input": "x"}',
        b'{"model": "letters", "input": "x", "dimensions": 3}',
    ],
)
async def test_embeddings_that_cannot_be_made_are_refused(stack: Stack, body: bytes) -> None:
    status, error, _ = await post(stack, body, "/v1/embeddings")
    assert status == 400
    assert error["message"]


async def test_no_route_and_no_such_exchange_are_404_in_the_envelope(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/nowhere", "/exchanges/none", "/v1/models/nobody", "/exchanges?limit=0"):
            async with session.get(stack.url + path) as reply:
                assert reply.status in (400, 404)
                assert (await reply.json())["error"]["message"]
        async with session.get(stack.url + "/v1/chat/completions") as reply:
            assert reply.status == 405


async def test_a_page_elsewhere_cannot_reach_a_local_service_under_its_own_name(stack: Stack) -> None:
    status, error, _ = await post(stack, chat(), Host="evil.example")
    assert status == 400
    assert error["param"] == "host"


async def test_without_a_key_a_service_that_needs_one_answers_401(tmp_path: Path) -> None:
    with running_stack(tmp_path, require_keys="always") as stack:
        assert (await post(stack, chat()))[0] == 401
        assert (await post(stack, chat(), Authorization="Bearer tdm_wrong"))[0] == 401
        secret = stack.guard.keys.create("alice", "default")
        assert (await post(stack, chat(), Authorization=f"Bearer {secret}"))[0] == 200
        stack.guard.keys.revoke(stack.guard.keys.list()[0].id)
        status, error, _ = await post(stack, chat(), Authorization=f"Bearer {secret}")
        assert status == 401
        assert error["code"] == "invalid_api_key"
        assert secret not in str(stack.recorded())


async def test_too_many_requests_are_429_with_the_time_to_wait(tmp_path: Path) -> None:
    with running_stack(tmp_path, requests_per_minute=2) as stack:
        for _ in range(2):
            assert (await post(stack, chat()))[0] == 200
        status, error, headers = await post(stack, chat())
    assert status == 429
    assert error["code"] == "rate_limit_exceeded"
    assert 1 <= int(headers["Retry-After"]) <= 61


async def test_a_bug_is_a_500_that_tells_nothing_but_the_request_id(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        stack.shelf.error = ZeroDivisionError("secret")
        status, error, headers = await post(stack, chat())
    assert status == 500
    assert "secret" not in str(error)
    assert headers["X-Request-Id"]


def test_a_caller_who_sends_half_a_request_and_leaves_breaks_nothing(tmp_path: Path) -> None:
    with running_stack(tmp_path, FakeLlm("Fine.")) as stack:
        host, port = stack.url.removeprefix("http://").split(":")
        for half in (
            b"POST /v1/chat",
            b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{",
        ):
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(half)
        assert stack.recorded() == []
