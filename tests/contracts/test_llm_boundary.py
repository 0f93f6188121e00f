"""What the business tier may expect of any LLM server: the embedded one and real vLLM keep the same promises.

Where they differ, `Server` says so.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from business_api.upstream.stream import CONTINUING

MODEL = "smollm2-135m-instruct"
LONG_STORY = [{"role": "user", "content": "Tell a very long story about a lighthouse keeper and the sea."}]
YES_OR_NO = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


@dataclass(frozen=True)
class Server:
    """A running server, and in what it differs from the others."""

    client: httpx2.Client
    running: str
    """Name of the metric that counts answers in the making."""
    knows_its_name: bool
    """Whether it refuses a model name that is not its own; llama.cpp answers to any."""
    echoes_request_ids: bool

    def chat(self, messages: list[dict[str, str]], **fields: Any) -> httpx2.Response:
        return self.client.post("/v1/chat/completions", json=_chat(messages, **fields))

    def count(self) -> float:
        """Answers in the making, now."""
        lines = self.client.get("/metrics").text.splitlines()
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(self.running)]
        assert found, f"no metric {self.running}"
        return sum(found)


def _chat(messages: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0} | fields


@pytest.fixture(
    params=[
        pytest.param("embedded_llm", marks=pytest.mark.embedded),
        pytest.param("vllm_server", marks=pytest.mark.vllm),
    ]
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    url: str = request.getfixturevalue(request.param)
    is_vllm = request.param == "vllm_server"
    metric = "vllm:num_requests_running{" if is_vllm else "llamacpp:requests_processing "
    # a busy server may close a connection that is idle: none is used twice
    anew = {"Connection": "close"}
    root = url.removesuffix("/v1")
    with httpx2.Client(base_url=root, headers=anew, timeout=120, trust_env=False) as client:
        yield Server(client, metric, knows_its_name=is_vllm, echoes_request_ids=is_vllm)


def asked(question: str = "Say hello.") -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def frames(lines: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error of an OpenAI envelope."""
    error: dict[str, Any] = response.json()["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    return error


def test_a_loaded_server_is_healthy_and_lists_the_served_name(server: Server) -> None:
    assert server.client.get("/health").status_code == 200
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [MODEL]


def test_a_whole_answer_says_why_it_ended_and_what_it_cost(server: Server) -> None:
    answer = server.chat(asked()).json()
    (choice,) = answer["choices"]
    usage = answer["usage"]
    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens"] <= 8 < usage["prompt_tokens"]


def test_max_tokens_ends_an_answer_with_length(server: Server) -> None:
    answer = server.chat(LONG_STORY, max_tokens=5).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_a_streamed_answer_is_the_whole_one_in_pieces_then_usage_then_done(server: Server) -> None:
    whole = server.chat(asked()).json()["choices"][0]["message"]["content"]
    body = _chat(asked(), stream=True, stream_options={"include_usage": True})
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, done = frames(response.iter_lines())
    parsed = [json.loads(event) for event in events]
    choices = [choice for event in parsed for choice in event["choices"]]
    assert done == "[DONE]"
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == whole
    assert [c["finish_reason"] for c in choices if c.get("finish_reason")] in (["stop"], ["length"])
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"]["completion_tokens"] > 0
    assert {event["object"] for event in parsed} == {"chat.completion.chunk"}


def test_an_answer_is_gone_on_with_from_what_was_said(server: Server) -> None:
    whole = streamed(server, LONG_STORY, max_tokens=24)
    for share in (1, 2, 3):
        said = whole[: len(whole) * share // 4].rpartition(" ")[0]
        begun = [*LONG_STORY, {"role": "assistant", "content": said}]
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        rest = streamed(server, begun, max_tokens=8, **fields)
        assert (said + rest)[: len(whole)] == whole[: len(said + rest)]


def streamed(server: Server, messages: list[dict[str, str]], **fields: Any) -> str:
    """The text of a streamed answer; whole ones of llama.cpp repeat what was begun."""
    with server.client.stream(
        "POST", "/v1/chat/completions", json=_chat(messages, stream=True, **fields)
    ) as r:
        *events, _ = frames(r.iter_lines())
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_a_server_says_who_made_it(server: Server) -> None:
    """Only of these two is known that they go on with an answer."""
    (model,) = server.client.get("/v1/models").json()["data"]
    assert model["owned_by"] in CONTINUING


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(server: Server) -> None:
    choice = server.chat(LONG_STORY, stop=[" "], max_tokens=64).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert " " not in choice["message"]["content"]


def test_the_same_seed_gives_the_same_answer(server: Server) -> None:
    answers = [server.chat(LONG_STORY, temperature=1, seed=11, max_tokens=6).json() for _ in range(3)]
    assert len({answer["choices"][0]["message"]["content"] for answer in answers[1:]}) == 1


def test_an_answer_keeps_to_a_json_schema(server: Server) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": YES_OR_NO, "strict": True}}
    answer = server.chat(asked("Is water wet?"), response_format=schema, max_tokens=64).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["answer"] in ("yes", "no")


def test_log_probabilities_come_with_the_tokens(server: Server) -> None:
    answer = server.chat(asked(), logprobs=True, top_logprobs=2, max_tokens=3).json()
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert 1 <= len(tokens) <= 3
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 2 for token in tokens)


def test_tools_are_taken_or_refused_by_name(server: Server) -> None:
    response = server.chat(asked("What is the weather?"), tools=[WEATHER])
    if response.status_code == 200:
        assert response.json()["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")
    else:
        assert response.status_code == 400
        assert "tool" in error_of(response)["message"]


def test_another_model_name_is_a_404_or_answered_by_the_only_model(server: Server) -> None:
    response = server.chat(asked(), model="some-other-model")
    if server.knows_its_name:
        assert response.status_code == 404
        assert "some-other-model" in error_of(response)["message"]
    else:
        assert response.json()["model"] == MODEL


def test_a_prompt_longer_than_the_context_is_a_400(server: Server) -> None:
    response = server.chat(asked("word " * 4000))
    assert response.status_code == 400
    assert "token" in error_of(response)["message"]


@pytest.mark.parametrize("body", [b"{", b'{"model": "smollm2-135m-instruct"}'])
def test_what_is_not_a_chat_request_is_a_4xx_in_the_envelope(server: Server, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = server.client.post("/v1/chat/completions", content=body, headers=headers)
    assert 400 <= response.status_code < 500
    error_of(response)


def test_a_request_id_is_echoed_where_the_server_knows_how(server: Server) -> None:
    response = server.client.post(
        "/v1/chat/completions", json=_chat(asked(), max_tokens=1), headers={"X-Request-Id": "exchange-7"}
    )
    assert response.status_code == 200
    assert response.headers.get("x-request-id") == ("exchange-7" if server.echoes_request_ids else None)


def test_more_requests_than_slots_all_get_their_answer(server: Server) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: server.chat(asked(f"Say {n}."), max_tokens=3), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6


def test_a_caller_that_hangs_up_stops_the_answer(server: Server) -> None:
    assert wait_for_count(server, 0)
    body = _chat(LONG_STORY, stream=True, max_tokens=1500, ignore_eos=True)
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        assert server.count() == 1
    assert wait_for_count(server, 0)


def wait_for_count(server: Server, wanted: float) -> bool:
    """Whether the server comes to have `wanted` answers in the making, long before it could finish one."""
    for _ in range(100):
        if server.count() == wanted:
            return True
        time.sleep(0.05)
    return False
