"""What only vLLM promises and we build on: ids, cached tokens, fingerprints, flags, equal tokens."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from llm_server.launch import vllm_command, vllm_environment, vllm_executable
from llm_server.registry import Registry
from llm_server.settings import Settings

pytestmark = pytest.mark.vllm

MODEL = "smollm2-135m-instruct"
SENTENCES = [
    "Which port does the LLM server listen on? 127.0.0.1:8001.",
    "Zürich, 東京, \U0001f600 and\ttabs\n\n\nnew lines   spaces",
    "def f(x): return x**2  # 1234567890",
    "don't won't it's THE END <|im_end|> of it",
]


@pytest.fixture
def vllm(vllm_server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=vllm_server.removesuffix("/v1"), timeout=120, trust_env=False) as client:
        yield client


def chat(client: httpx2.Client, content: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 4} | fields
    return client.post("/v1/chat/completions", json=body, headers=headers).json()


def test_the_request_id_becomes_the_id_of_the_answer(vllm: httpx2.Client) -> None:
    assert chat(vllm, "Hello", {"X-Request-Id": "exchange-8"})["id"] == "chatcmpl-exchange-8"


def test_the_fingerprint_names_the_version_that_answered(vllm: httpx2.Client) -> None:
    version = vllm.get("/version").json()["version"]
    assert chat(vllm, "Hello")["system_fingerprint"].startswith(f"vllm-{version}")


def test_a_prompt_seen_before_is_counted_as_cached(vllm: httpx2.Client) -> None:
    long = "The lighthouse keeper wrote in his log. " * 60
    chat(vllm, long)
    usage = chat(vllm, long)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 128


def test_usage_comes_with_a_stream_that_did_not_ask_for_it(vllm: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}
    text = vllm.post("/v1/chat/completions", json=body).text
    assert '"total_tokens"' in text


def test_more_tokens_than_the_context_holds_are_a_400(vllm: httpx2.Client) -> None:
    error = chat(vllm, "Hello", max_tokens=100_000)["error"]
    assert error["code"] == 400
    assert "max_tokens" in error["message"]


def test_the_metrics_that_limits_and_health_are_read_from_exist(vllm: httpx2.Client) -> None:
    chat(vllm, "Hello")
    text = vllm.get("/metrics").text
    for name in (
        "vllm:num_requests_running{",
        "vllm:num_requests_waiting{",
        "vllm:iteration_tokens_total_count{",
        "vllm:time_to_first_token_seconds_bucket{",
        "vllm:request_queue_time_seconds_bucket{",
        "vllm:kv_cache_usage_perc{",
    ):
        assert name in text


def test_the_interactive_api_pages_are_not_served(vllm: httpx2.Client) -> None:
    assert [vllm.get(path).status_code for path in ("/docs", "/openapi.json")] == [404, 404]


@pytest.mark.embedded
def test_both_engines_see_the_same_prompt_in_the_same_tokens(vllm: httpx2.Client, embedded_llm: str) -> None:
    with httpx2.Client(base_url=embedded_llm.removesuffix("/v1"), trust_env=False) as llama:
        for sentence in SENTENCES:
            messages = [{"role": "user", "content": sentence}]
            prompt = llama.post("/apply-template", json={"messages": messages}).json()["prompt"]
            ours = llama.post("/tokenize", json={"content": prompt, "parse_special": True}).json()["tokens"]
            theirs = vllm.post("/tokenize", json={"model": MODEL, "messages": messages}).json()["tokens"]
            assert ours == theirs


def test_every_flag_of_every_registry_entry_is_one_that_vllm_knows(vllm_server: str) -> None:
    settings = Settings()
    models = Registry.load(settings.registry).models
    known = subprocess.run(
        [vllm_executable(settings), "serve", "--help=all"],
        env=dict(os.environ) | vllm_environment(models[0], settings),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for model in models:
        if model.engine == "vllm":
            for word in vllm_command(model, settings):
                assert (
                    not word.startswith("--")
                    or f"{word} " in known
                    or f"{word}\n" in known
                    or f"{word}," in known
                )
            assert (model.tool_call_parser or "hermes") in known
