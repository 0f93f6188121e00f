"""openai-python, sync and async, against a running stack: python openai_python.py BASE_URL [KEY]."""

import asyncio
import sys
from typing import Any

import openai

QUESTION: Any = [{"role": "user", "content": "Which port does the LLM server listen on?"}]
PARTS: Any = [{"role": "user", "content": [{"type": "text", "text": "Which port does the LLM server use?"}]}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}},
}


def whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tandem", messages=QUESTION, max_completion_tokens=60)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    tandem: Any = answer.model_extra["tandem"]  # type: ignore[index]
    assert tandem["outcome"] == "answered"
    print("whole:", answer.choices[0].message.content, [c["quote"] for c in tandem["citations"]])


def parts_and_roles(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "developer", "content": "Be brief."}, *PARTS]
    answer = client.chat.completions.create(
        model="tandem", messages=messages, max_tokens=20, temperature=0, top_p=0.9, seed=1, stop=["\n\n"]
    )
    assert answer.choices[0].message.content is not None
    print("parts and roles: ok")


def stream_as_the_readme_does(client: openai.OpenAI) -> None:
    """The loop of the client's own README reads `choices[0]` of every chunk."""
    text = ""
    with client.chat.completions.create(
        model="tandem", messages=QUESTION, max_tokens=60, stream=True
    ) as chunks:
        for chunk in chunks:
            text += chunk.choices[0].delta.content or ""
    assert text
    print("stream:", text)


def usage_in_a_stream(client: openai.OpenAI) -> None:
    last = None
    options: Any = {"include_usage": True}
    with client.chat.completions.create(
        model="tandem", messages=QUESTION, max_tokens=20, stream=True, stream_options=options
    ) as chunks:
        for chunk in chunks:
            last = chunk
    assert last is not None
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0
    assert last.model_extra["tandem"]["outcome"] == "answered"  # type: ignore[index]
    print("usage:", last.usage.total_tokens)


def explanation(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tandem", messages=QUESTION, max_tokens=20, extra_body={"tandem": {"explain": True}}
    )
    explain = answer.model_extra["tandem"]["explain"]  # type: ignore[index]
    assert explain["query"]["texts"]
    print("explain:", len(explain["candidates"]), "candidates")
    wrong = {"tandem": {"filter": {"colour": "red"}}}
    try:
        client.chat.completions.create(model="tandem", messages=QUESTION, extra_body=wrong)
    except openai.BadRequestError as exc:
        assert exc.param == "tandem.filter.colour"
    else:
        raise AssertionError("BadRequestError was not raised")


def tools(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="plain", messages=QUESTION, tools=[TOOL], max_tokens=40)
    message = answer.choices[0].message
    assert message.tool_calls or message.content
    print("tools:", answer.choices[0].finish_reason)


def tool_results(client: openai.OpenAI) -> None:
    call: Any = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    messages: Any = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "8001"},
    ]
    answer = client.chat.completions.create(model="plain", messages=messages, max_tokens=20)
    assert answer.choices[0].message is not None
    print("tool results: ok")


def errors(client: openai.OpenAI) -> None:
    wrong: Any
    for expected, wrong in (
        (openai.NotFoundError, {"model": "nobody", "messages": QUESTION}),
        (openai.BadRequestError, {"model": "tandem", "messages": []}),
        (openai.BadRequestError, {"model": "tandem", "messages": QUESTION, "n": 2}),
    ):
        try:
            client.chat.completions.create(**wrong)
        except expected as exc:
            assert exc.body is not None
            print("error:", type(exc).__name__, exc.code, exc.param)
        else:
            raise AssertionError(f"{expected.__name__} was not raised")


def models_and_embeddings(client: openai.OpenAI) -> None:
    assert next(iter(client.models.list())).id == "tandem"
    assert client.models.retrieve("plain").id == "plain"
    print("models: ok")


async def in_async(client: openai.AsyncOpenAI) -> None:
    answers = await asyncio.gather(
        *(client.chat.completions.create(model="tandem", messages=QUESTION, max_tokens=20) for _ in range(3))
    )
    assert all(answer.choices[0].message.content for answer in answers)
    text = ""
    stream = await client.chat.completions.create(
        model="tandem", messages=QUESTION, max_tokens=20, stream=True
    )
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    assert text
    await client.close()
    print("async:", text)


def main() -> None:
    base_url, key = sys.argv[1], (sys.argv[2:] or ["none"])[0]
    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=300)
    for check in (
        whole, parts_and_roles, stream_as_the_readme_does, usage_in_a_stream, explanation, tools,
        tool_results, errors, models_and_embeddings,
    ):  # fmt: skip
        check(client)
    client.close()
    asyncio.run(in_async(openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=300)))


if __name__ == "__main__":
    main()
