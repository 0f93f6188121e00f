"""The embedded server as users start it, and as an ASGI app inside another process."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from business_api.transport import InProcess
from llm_server.embedded import Embedded
from llm_server.embedded import app as embedded_app
from llm_server.errors import InvalidSetting
from llm_server.ports import require_free
from llm_server.registry import Registry
from llm_server.relay import Relay
from llm_server.settings import Settings
from tests.llm_fixtures import MODEL, ROOT, command, environment, free_port, stop

pytestmark = pytest.mark.embedded

ASKED = {"messages": [{"role": "user", "content": "Tell a long story."}], "max_tokens": 4, "temperature": 0}


def started(*arguments: str, **variables: str) -> "tuple[subprocess.Popen[bytes], str]":
    """A server that answers, and its address."""
    process = subprocess.Popen(
        command("serve", *arguments),
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline().decode()
    return process, re.findall(r"http://[0-9.:]+", said)[0]


def refusal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit status and the one line of a server that does not start."""
    done = subprocess.run(
        command("serve", *arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_cleanly_even_with_an_answer_in_the_making(number: signal.Signals) -> None:
    process, url = started("--port", "0")
    body = ASKED | {"max_tokens": 1500, "stream": True, "ignore_eos": True}
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert next(response.iter_lines()).startswith("data: ")
        process.send_signal(number)
        _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, b"")


def test_a_key_is_asked_for_when_one_is_set() -> None:
    process, url = started("--port", "0", LLM_SERVER_API_KEY="sk-one")
    try:
        url += "/v1/chat/completions"
        assert httpx2.post(url, json=ASKED).status_code == 401
        allowed = httpx2.post(url, json=ASKED, headers={"Authorization": "Bearer sk-one"}, timeout=60)
        assert allowed.status_code == 200
    finally:
        stop(process)
        process.communicate()


def test_pages_of_other_origins_are_not_let_in(embedded_llm: str) -> None:
    reply = httpx2.get(f"{embedded_llm}/models", headers={"Origin": "http://evil.example"})
    assert reply.headers.get("access-control-allow-origin", "") == ""
    assert httpx2.get(f"{embedded_llm.removesuffix('/v1')}/slots").status_code != 200


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refusal("--port", str(port))
    assert code == 1
    assert line.startswith(f"llm-server: 127.0.0.1:{port} cannot be used (Address already in use)")
    assert "--port or LLM_SERVER_PORT" in line


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidSetting, match=r"no host 'nowhere\.invalid'"):
        require_free("nowhere.invalid", free_port())


def test_a_missing_model_file_says_how_to_make_it(tmp_path: Path) -> None:
    code, line = refusal("--port", str(free_port()), LLM_SERVER_VAR=str(tmp_path))
    assert code == 1
    assert "model-q8_0.gguf is missing; make it with `make models`" in line


def test_a_model_file_with_the_wrong_digest_is_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / f"models/{MODEL}"
    shutil.copytree(ROOT / f"var/models/{MODEL}", folder)
    with (folder / "model-q8_0.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    code, line = refusal("--port", str(free_port()), LLM_SERVER_VAR=str(tmp_path))
    assert code == 1
    assert "model-q8_0.gguf has the wrong digest" in line


def test_a_wrong_engine_is_a_wrong_call() -> None:
    assert refusal("--engine", "onnx") == (2, "llm-server: no engine 'onnx'; there are: llama.cpp, vllm\n")


@pytest.fixture(scope="module")
def relay() -> Any:
    """The server as an ASGI app of this process."""
    app = embedded_app()
    yield app
    assert isinstance(app.server, Embedded)
    app.server.close()


async def events(reply: Any) -> AsyncIterator[str]:
    text = b"".join([piece async for piece in reply]).decode()
    for line in text.splitlines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


async def test_the_asgi_app_streams_a_whole_answer(relay: Relay) -> None:
    body = json.dumps(ASKED | {"stream": True}).encode()
    reply = await InProcess(relay).send(
        "POST", "/chat/completions", body, {"content-type": "application/json"}
    )
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    *deltas, done = [event async for event in events(reply)]
    assert done == "[DONE]"
    assert sum("content" in json.loads(delta)["choices"][0]["delta"] for delta in deltas[:-1]) >= 4


async def test_the_asgi_app_passes_errors_on(relay: Relay) -> None:
    reply = await InProcess(relay).send(
        "POST", "/chat/completions", b"{", {"content-type": "application/json"}
    )
    assert reply.status == 400
    assert "error" in json.loads(b"".join([piece async for piece in reply]))


async def test_hanging_up_on_the_asgi_app_stops_the_answer(relay: Relay) -> None:
    body = json.dumps(ASKED | {"stream": True, "max_tokens": 1500, "ignore_eos": True}).encode()
    transport = InProcess(relay, prefix="")
    reply = await transport.send("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    assert await anext(aiter(reply))
    assert await running(transport) == "1"
    await reply.aclose()
    for _ in range(100):
        if await running(transport) == "0":
            return
        await asyncio.sleep(0.05)
    pytest.fail("the answer goes on")


async def running(transport: InProcess) -> str:
    reply = await transport.send("GET", "/metrics", b"", {})
    text = b"".join([piece async for piece in reply]).decode()
    (line,) = [line for line in text.splitlines() if line.startswith("llamacpp:requests_processing ")]
    return line.split(" ")[1]


class Gone:
    """A server that has ended."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"


async def test_a_server_that_ended_is_a_502_of_the_asgi_app() -> None:
    reply = await InProcess(Relay(Gone())).send("GET", "/models", b"", {})
    assert reply.status == 502
    assert json.loads(b"".join([piece async for piece in reply]))["error"]["code"] == 502


def test_the_released_default_gives_every_slot_2048_tokens() -> None:
    model = Registry.load(Settings().registry).find(Settings().model)
    assert model.max_model_len >= 2048
    assert model.max_num_seqs >= 2
