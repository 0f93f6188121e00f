"""Asks a running business API and prints what it says: what `business-api ask` does."""

from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from business_api.errors import InvalidRequest, ServiceError, Unavailable

LISTS = ("documents", "tags")
DOUBLE = "duplicate of "


async def ask_server(
    url: str,
    key: str | None,
    question: str,
    assistant: str | None = None,
    *,
    explain: bool = False,
    filters: Sequence[str] = (),
) -> dict[str, Any]:
    """The answer of `POST /chat`; each of `filters` is `name=value`, lists separated by commas.

    Raises ServiceError with what the server said, Unavailable without one.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"message": question, "tandem": {"explain": explain, "filter": dict(map(_filter, filters))}}
    if assistant:
        body["assistant"] = assistant
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{url.rstrip('/')}/chat", json=body) as reply,
        ):
            answered: dict[str, Any] = await reply.json()
    except (aiohttp.ClientError, ValueError) as exc:
        raise Unavailable(
            f"no business API answers at {url}: start one with business-api serve, or name it with --url"
        ) from exc
    if reply.status == 401:
        raise ServiceError(
            "this service needs an API key: use --key, or make one with: business-api keys create NAME"
        )
    if "error" in answered:
        raise ServiceError(f"{answered['error']['message']} (HTTP {reply.status})")
    return answered


def _filter(given: str) -> tuple[str, str | list[str]]:
    name, equals, value = given.partition("=")
    if not equals:
        raise InvalidRequest(f"--filter {given}: write it as name=value, such as tags=guide,draft")
    return name, value.split(",") if name in LISTS else value


def shown(answered: dict[str, Any]) -> Iterator[Text | Table]:
    """The answer for a terminal: its text, citations or nearest passages, notes, and the explanation."""
    tandem = answered["tandem"]
    yield Text(answered["answer"])
    for citation in tandem["citations"]:
        doubt = " (not supported)" if citation.get("supported") is False else ""
        yield _quiet(f"[{citation['marker']}]{doubt} {citation['document']}: “{_line(citation['quote'])}”")
    for near in tandem.get("passages", ()):
        yield _quiet(f"nearest: {' > '.join((near['document'], *near['heading']))}")
    if "cached" in tandem:
        yield _quiet(f"given before: {tandem['cached']['age_s']:.0f} s ago")
    if "answerable" in tandem:
        yield _quiet(f"answerable: {tandem['answerable']:.0%}")
    if tandem["degraded"]:
        yield Text(f"  degraded: {', '.join(tandem['degraded'])}", style="yellow")
    if "explain" in tandem:
        yield from _explanation(tandem["explain"])


def print_answer(answered: dict[str, Any]) -> None:
    """Print it on standard output."""
    console = Console()
    for part in shown(answered):
        console.print(part)


def _quiet(text: str) -> Text:
    return Text(f"  {text}", style="dim")


def _line(text: str) -> str:
    return " ".join(text.split())


def _explanation(explain: dict[str, Any]) -> Iterator[Text | Table]:
    query = explain["query"]
    if query is None:
        yield _quiet("nothing was searched: this assistant has no documents")
        return
    for text in query["texts"]:
        yield _quiet(f"searched for: {_line(text)}")
    if query["hypothetical"]:
        yield _quiet(f"as if answered by: {_line(query['hypothetical'])}")
    if query["filter"]:
        told = (f"{name}={','.join(v) if isinstance(v, list) else v}" for name, v in query["filter"].items())
        yield _quiet(f"only: {' '.join(told)}")
    yield _table(explain["candidates"])


def _table(candidates: list[dict[str, Any]]) -> Table:
    table = Table("no.", "passage", "dense", "BM25", "fused", "reranked", "fate", show_edge=False)
    numbers = {one["chunk"]: number for number, one in enumerate(candidates, 1)}
    for number, one in enumerate(candidates, 1):
        places = (_place(one[stage]) for stage in ("dense", "bm25", "fused", "rerank"))
        where = Text(" > ".join((one["document"], *one["heading"])))
        fate = one["fate"]
        if fate.startswith(DOUBLE):
            fate = f"same as no. {numbers.get(fate.removeprefix(DOUBLE), '?')}"
        style = "bold" if one["fate"] == "kept" else "dim"
        table.add_row(str(number), where, *places, Text(fate), style=style)
    return table


def _place(place: dict[str, float] | None) -> str:
    return "-" if place is None else f"{place['rank']:.0f}: {place['score']:.3g}"
