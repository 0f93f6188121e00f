"""What a caller can ask of retrieval: why each candidate was kept or dropped, and only some documents."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from business_api.cli import cli
from business_api.passages import Candidate, Narrowing
from tests.fakes import FakeLlm, FixedJudge, FixedShelf, passage
from tests.stack import PORTS, Stack, running_stack

TWIN = passage("The LLM server listens on 127.0.0.1:8001 by default.", "docs/twin.md").chunk
FAR = passage("Something else.", "docs/far.md").chunk
CANDIDATES = (
    Candidate(
        chunk=PORTS.chunk, dense_rank=2, dense_score=0.71234567, bm25_rank=1, bm25_score=9.5,
        score=0.9, rerank_score=4.25, fate="kept",
    ),
    Candidate(chunk=TWIN, dense_rank=1, dense_score=0.8, score=1.1, rerank_score=-1.0, fate="duplicate of x"),
    Candidate(chunk=FAR, bm25_rank=2, bm25_score=3.0, score=0.2),
)  # fmt: skip
EXPLAIN = {"explain": True}


def shelf() -> FixedShelf:
    return FixedShelf((PORTS,), candidates=CANDIDATES)


async def asked(stack: Stack, path: str, **fields: Any) -> tuple[int, Any]:
    """Status, and the JSON or the payloads of the stream; `[DONE]` stays a string."""
    openai = {"model": "tandem", "messages": [{"role": "user", "content": "Which port?"}]}
    body = (openai if path.startswith("/v1") else {"message": "Which port?"}) | fields
    async with aiohttp.ClientSession() as session, session.post(stack.url + path, json=body) as reply:
        text = await reply.text()
    if reply.content_type == "application/json":
        return reply.status, msgspec.json.decode(text)
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return reply.status, [line if line == "[DONE]" else msgspec.json.decode(line) for line in lines]


async def post(stack: Stack, path: str, **fields: Any) -> Any:
    status, answered = await asked(stack, path, **fields)
    assert status == 200, answered
    return answered


PATHS = pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])


@PATHS
async def test_every_candidate_is_explained_with_its_place_in_each_stage(tmp_path: Path, path: str) -> None:
    with running_stack(tmp_path, shelf=shelf()) as stack:
        answered = await post(stack, path, tandem=EXPLAIN)
    explain = answered["tandem"]["explain"]
    assert explain["query"] == {"texts": ["Which port?"], "hypothetical": None, "filter": {}}
    first, second, third = explain["candidates"]
    assert first == {
        "chunk": PORTS.chunk.id, "document": "docs/ports.md", "title": "ports.md", "heading": [],
        "start": 0, "end": len(PORTS.chunk.text),
        "dense": {"rank": 2, "score": 0.712346}, "bm25": {"rank": 1, "score": 9.5},
        "fused": {"rank": 2, "score": 0.9}, "rerank": {"rank": 1, "score": 4.25}, "fate": "kept",
    }  # fmt: skip
    assert (second["bm25"], second["fused"]["rank"], second["rerank"]["rank"]) == (None, 1, 2)
    assert (third["dense"], third["rerank"], third["fate"]) == (None, None, "too far down")
    assert (third["fused"]["rank"], second["fate"]) == (3, "duplicate of x")


@PATHS
async def test_nothing_is_explained_unasked(tmp_path: Path, path: str) -> None:
    with running_stack(tmp_path, shelf=shelf()) as stack:
        for wish in ({}, {"explain": False}):
            assert "explain" not in (await post(stack, path, tandem=wish))["tandem"]
        assert [exchange.explained for exchange in stack.recorded()] == [(), ()]


@PATHS
@pytest.mark.parametrize("usage", [True, False])
async def test_in_a_stream_the_explanation_comes_with_the_tandem_object(
    tmp_path: Path, path: str, usage: bool
) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": usage}} if path.startswith("/v1") else {}
    with running_stack(tmp_path, shelf=shelf()) as stack:
        whole = await post(stack, path, tandem=EXPLAIN)
        frames = await post(stack, path, tandem=EXPLAIN, stream=True, **more)
    bearing = [frame["tandem"] for frame in frames if "tandem" in frame]
    assert [tandem["explain"] for tandem in bearing] == [whole["tandem"]["explain"]]


async def test_an_assistant_without_documents_has_nothing_to_explain(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        answered = await post(stack, "/v1/chat/completions", model="plain", tandem=EXPLAIN)
    assert answered["tandem"]["explain"] == {"query": None, "candidates": []}


@PATHS
async def test_a_filter_narrows_the_search_and_is_recorded(tmp_path: Path, path: str) -> None:
    wished = {"documents": ["docs/a.md"], "language": "en", "tags": ["x", "y"], "after": "2026-01-31"}
    with running_stack(tmp_path, shelf=shelf()) as stack:
        answered = await post(stack, path, tandem={"filter": wished, "explain": True})
        (exchange,) = stack.recorded()
    after = datetime.date(2026, 1, 31)
    wanted = Narrowing(documents=("docs/a.md",), language="en", tags=("x", "y"), after=after)
    assert stack.shelf.queries[0].narrowing == wanted
    assert exchange.question.narrowing == wanted
    assert answered["tandem"]["explain"]["query"]["filter"] == wished


async def test_a_filter_names_a_language_as_the_documents_do(tmp_path: Path) -> None:
    with running_stack(tmp_path, shelf=shelf()) as stack:
        await post(stack, "/v1/chat/completions", tandem={"filter": {"language": "EN-gb"}})
        odd = {"filter": {"language": "plain English"}}
        status, refused = await asked(stack, "/v1/chat/completions", tandem=odd)
    assert stack.shelf.queries[0].narrowing == Narrowing(language="en")
    assert (status, refused["error"]["param"]) == (400, "tandem.filter.language")


@PATHS
async def test_an_abstention_shows_the_nearest_passages_and_never_reaches_the_model(
    tmp_path: Path, path: str
) -> None:
    llm, judge = FakeLlm(), FixedJudge(probability=0.12345, threshold=0.5)
    name = {"model": "careful"} if path.startswith("/v1") else {"assistant": "careful"}
    with running_stack(tmp_path, llm, shelf(), judge=judge) as stack:
        answered = await post(stack, path, **name)
    tandem = answered["tandem"]
    chunk = PORTS.chunk
    assert (tandem["outcome"], tandem["answerable"], llm.requests) == ("abstained", 0.123, [])
    assert tandem["passages"] == [
        {
            "document": chunk.document, "title": chunk.title, "heading": [], "start": chunk.start,
            "end": chunk.end, "text": chunk.text,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("streams", [True, False])
async def test_for_openai_clients_an_abstention_is_an_ordinary_answer(tmp_path: Path, streams: bool) -> None:
    judge = FixedJudge(probability=0.1)
    with running_stack(tmp_path, shelf=shelf(), judge=judge) as stack:
        answered = await post(stack, "/v1/chat/completions", model="careful", stream=streams)
        (exchange,) = stack.recorded()
    last = answered[-2] if streams else answered
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["tandem"]["outcome"] == "abstained"
    assert exchange.finish_reason == "abstained"


async def test_how_probable_an_answer_is_is_said_only_when_it_was_judged(tmp_path: Path) -> None:
    with running_stack(tmp_path / "a", judge=FixedJudge(probability=0.87654)) as stack:
        judged = await post(stack, "/v1/chat/completions")
    with running_stack(tmp_path / "b") as stack:
        unjudged = await post(stack, "/v1/chat/completions")
    assert judged["tandem"]["answerable"] == 0.877
    assert {"answerable", "passages"}.isdisjoint(unjudged["tandem"])
    assert "passages" not in judged["tandem"]


def test_the_command_shows_the_candidates_as_a_table(tmp_path: Path) -> None:
    fates = replace(CANDIDATES[1], fate=f"duplicate of {PORTS.chunk.id}")
    explained = FixedShelf((PORTS,), candidates=(CANDIDATES[0], fates, CANDIDATES[2]))
    with running_stack(tmp_path, shelf=explained, judge=FixedJudge(probability=0.9)) as stack:
        words = ["ask", "Which port?", "--url", stack.url, "--explain", "--filter", "tags=a,b"]
        shown = CliRunner(env={"COLUMNS": "140"}).invoke(cli, words)
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.output.splitlines()]
    assert "It listens on port 8001 [1]." in lines
    assert "answerable: 90%" in lines
    assert "searched for: Which port?" in lines
    assert "only: tags=a,b" in lines
    assert "1 docs/ports.md 2: 0.712 1: 9.5 2: 0.9 1: 4.25 kept" in lines
    assert "2 docs/twin.md 1: 0.8 - 1: 1.1 2: -1 same as no. 1" in lines
    assert "3 docs/far.md - 2: 3 3: 0.2 - too far down" in lines
    assert stack.shelf.queries[0].narrowing == Narrowing(tags=("a", "b"))


def test_the_command_shows_what_comes_nearest_when_there_is_no_answer(tmp_path: Path) -> None:
    with running_stack(tmp_path, shelf=shelf(), judge=FixedJudge(probability=0.1)) as stack:
        shown = CliRunner().invoke(cli, ["ask", "Who?", "--url", stack.url, "--assistant", "careful"])
    assert "The documents do not answer this." in shown.output
    assert "nearest: docs/ports.md" in shown.output


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("tags", 2, "name=value"),
        ("colour=red", 1, "tandem.filter.colour"),
        ("after=soon", 1, "tandem.filter.after"),
    ],
)
def test_the_command_says_which_filter_is_wrong(tmp_path: Path, given: str, code: int, said: str) -> None:
    with running_stack(tmp_path) as stack:
        shown = CliRunner().invoke(cli, ["ask", "Who?", "--url", stack.url, "--filter", given])
    assert shown.exit_code == code
    assert said in shown.stderr


WRONG_TANDEM: list[tuple[Any, str]] = [
    (True, "tandem"),
    (None, "tandem"),
    ({"mood": 1}, "tandem.mood"),
    ({"explain": "yes"}, "tandem.explain"),
    ({"explain": 1}, "tandem.explain"),
    ({"filter": []}, "tandem.filter"),
    ({"filter": {"colour": "red"}}, "tandem.filter.colour"),
    ({"filter": {"tenant": "other"}}, "tandem.filter.tenant"),
    ({"filter": {"documents": "docs/a.md"}}, "tandem.filter.documents"),
    ({"filter": {"documents": []}}, "tandem.filter.documents"),
    ({"filter": {"documents": [5]}}, "tandem.filter.documents[0]"),
    ({"filter": {"tags": []}}, "tandem.filter.tags"),
    ({"filter": {"tags": [""]}}, "tandem.filter.tags[0]"),
    ({"filter": {"language": ["en"]}}, "tandem.filter.language"),
    ({"filter": {"language": ""}}, "tandem.filter.language"),
    ({"filter": {"after": "yesterday"}}, "tandem.filter.after"),
    ({"filter": {"after": "2026-02-30"}}, "tandem.filter.after"),
    ({"filter": {"before": 20260131}}, "tandem.filter.before"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("var"), requests_per_minute=100_000) as stack:
        yield stack


@PATHS
@pytest.mark.parametrize(("tandem", "param"), WRONG_TANDEM)
async def test_a_wrong_tandem_object_is_refused_by_the_name_of_its_field(
    running: Stack, path: str, tandem: Any, param: str
) -> None:
    status, answered = await asked(running, path, tandem=tandem)
    assert (status, answered["error"]["param"]) == (400, param)
    assert param in answered["error"]["message"]
    assert running.shelf.asked == []
