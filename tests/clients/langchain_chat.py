"""LangChain's ChatOpenAI against a running stack: python langchain_chat.py BASE_URL [KEY]."""

import sys
from typing import Any

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

QUESTION = "Which port does the LLM server listen on?"


@tool
def look_up(name: str) -> str:
    """Look a setting up by its name."""
    return name


def chat(model: str, **fields: Any) -> ChatOpenAI:
    base_url, key = sys.argv[1], (sys.argv[2:] or ["none"])[0]
    return ChatOpenAI(model=model, base_url=base_url, api_key=key, max_retries=0, timeout=300, **fields)


def main() -> None:
    answer = chat("tandem", max_tokens=40).invoke(QUESTION)
    assert answer.content
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0
    print("whole:", answer.content)

    pieces = list(chat("tandem", max_tokens=40, stream_usage=True).stream(QUESTION))
    assert "".join(str(piece.content) for piece in pieces)
    assert any(piece.usage_metadata for piece in pieces)
    print("stream:", len(pieces), "pieces")

    called: Any = chat("plain", max_tokens=40).bind_tools([look_up]).invoke(QUESTION)
    assert called.tool_calls or called.content
    print("tools:", called.tool_calls)

    try:
        chat("nobody").invoke(QUESTION)
    except openai.NotFoundError as exc:
        print("error:", type(exc).__name__, exc.code)
    else:
        raise AssertionError("NotFoundError was not raised")


if __name__ == "__main__":
    main()
