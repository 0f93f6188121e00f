"""How much of what people wrote and read goes into a record."""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from business_api.exchange import Exchange, Message, Prompt
from business_api.passages import Passage, Query

Content = Literal["on", "redacted", "off"]
Change = Callable[[str], str]

_encode = msgspec.json.Encoder().encode
_PRIVATE = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # mail address
    r"|\b(?:sk|pk|tdm|ghp|gho|xox[bap])[-_][\w-]{16,}"  # API keys and tokens
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\b[A-Z]{2}\d{2}(?: ?[0-9A-Z]{4}){3,7}(?: ?[0-9A-Z]{1,3})?\b"  # IBAN
    r"|(?<![\w.])\+?\d(?:[ ()/-]{0,2}\d){8,18}(?![\w.])"  # card, account and telephone numbers
)


def encoded(exchange: Exchange, content: Content) -> bytes:
    """The record as JSON. Half a surrogate pair becomes `?`; raises what msgspec raises for anything else."""
    kept = exchange if content == "on" else _changed(exchange, _CHANGES[content])
    try:
        return _encode(kept)
    except UnicodeEncodeError:
        return _encode(mapped(msgspec.to_builtins(kept), _mended))


def redacted(text: str) -> str:
    """The text without what looks like a mail address, a key, or a card, account or telephone number."""
    return _PRIVATE.sub("[redacted]", text)


def mapped(value: Any, change: Change) -> Any:
    """The same JSON value with every string in it changed; names of fields stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mapped(inner, change) for inner in value]
    return value


def _blank(_: str) -> str:
    return ""


def _mended(text: str) -> str:
    return text.encode(errors="replace").decode()


_CHANGES: dict[str, Change] = {"redacted": redacted, "off": _blank}


def _changed(exchange: Exchange, change: Change) -> Exchange:
    replace, question = msgspec.structs.replace, exchange.question
    return replace(
        exchange,
        question=replace(
            question,
            messages=_messages(question.messages, change),
            sampling=mapped(dict(question.sampling), change),
        ),
        query=_query(exchange.query, change) if exchange.query else None,
        passages=_passages(exchange.passages, change),
        explained=tuple(
            replace(one, chunk=replace(one.chunk, text=change(one.chunk.text))) for one in exchange.explained
        ),
        prompt=_prompt(exchange.prompt, change) if exchange.prompt else None,
        answer=change(exchange.answer),
        tool_calls=mapped(exchange.tool_calls, change),
        citations=[replace(citation, quote=change(citation.quote)) for citation in exchange.citations],
    )


def _messages(messages: tuple[Message, ...], change: Change) -> tuple[Message, ...]:
    return tuple(
        msgspec.structs.replace(
            message, content=mapped(message.content, change), tool_calls=mapped(message.tool_calls, change)
        )
        for message in messages
    )


def _query(query: Query, change: Change) -> Query:
    return msgspec.structs.replace(
        query,
        texts=tuple(change(text) for text in query.texts),
        hypothetical=mapped(query.hypothetical, change),
    )


def _passages(passages: tuple[Passage, ...], change: Change) -> tuple[Passage, ...]:
    replace = msgspec.structs.replace
    return tuple(
        replace(passage, chunk=replace(passage.chunk, text=change(passage.chunk.text)))
        for passage in passages
    )


def _prompt(prompt: Prompt, change: Change) -> Prompt:
    return msgspec.structs.replace(
        prompt, messages=_messages(prompt.messages, change), passages=_passages(prompt.passages, change)
    )
