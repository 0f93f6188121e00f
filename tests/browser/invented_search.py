"""Invented searches for the pages: candidates with their places, an abstention, citations in doubt."""

from typing import Any

from tests.browser.invented import CITATIONS, DEFAULT, PASSAGES, Script, exchange_record

Place = tuple[int, float] | None
TITLES = ["Load tests", "Errors", "Glossary", "Security", "Ingestion", "Monitoring", "Deployment"]


def candidate(
    document: str, title: str, heading: list[str], places: tuple[Place, Place, Place, Place], fate: str
) -> dict[str, Any]:
    """A candidate of `explain`; `places`: rank and score of (dense, bm25, fused, rerank)."""
    named = {"document": document, "title": title, "heading": heading, "start": 0, "end": 100}
    stages = zip(("dense", "bm25", "fused", "rerank"), places, strict=True)
    placed = {name: place and {"rank": place[0], "score": place[1]} for name, place in stages}
    return {"chunk": f"{document}#1", **named, **placed, "fate": fate}


def _found(number: int, places: tuple[Place, Place, Place, Place], fate: str = "kept") -> dict[str, Any]:
    passage = PASSAGES[number]
    return candidate(passage["document"], passage["title"], passage["heading"], places, fate)


CANDIDATES = [
    _found(0, ((2, 0.712346), (1, 11.8213), (1, 1.532), (1, 4.2517))),
    _found(1, ((1, 0.744012), (4, 6.0412), (2, 1.4407), (2, 1.0371))),
    candidate(
        "docs/copy-of-configuration.md", "Configuration, an older copy", ["Services"],
        ((3, 0.7001), (2, 11.8213), (3, 1.4025), (3, 0.8822)), "duplicate of docs/configuration.md#1",
    ),
    _found(2, ((4, 0.5318), None, (4, 0.6103), (4, -2.113))),
    *(
        candidate(
            f"docs/{title.lower().replace(' ', '-')}.md", title, ["How it is done", "When it fails"],
            ((5 + place, 0.4 - place / 50), (3 + place, 4.2 - place / 3) if place % 2 else None,
             (5 + place, 0.52 - place / 20), None),
            "too far down",
        )
        for place, title in enumerate(TITLES)
    ),
]  # fmt: skip
EXPLAIN = {
    "query": {
        "texts": ["Which port does the LLM server listen on?", "Address of the language model"],
        "hypothetical": "The LLM server listens on a port of the loopback address.",
        "filter": {"language": "en", "tags": ["guide", "reference"], "after": "2026-01-31"},
    },
    "candidates": CANDIDATES,
}
EXPLAINED = Script(explain=EXPLAIN, answerable=0.874)
ABSTAINED = Script(
    deltas=["The documents do not answer this. ", "The passages shown come nearest to the question."],
    citations=[],
    outcome="abstained",
    finish_reason="abstained",
    answerable=0.124,
    explain=EXPLAIN,
)
DOUBTFUL = Script(
    citations=[CITATIONS[0] | {"supported": True}, CITATIONS[1] | {"supported": False}, CITATIONS[2]],
    degraded=["unsupported_citation"],
)


def _recorded(one: dict[str, Any]) -> dict[str, Any]:
    """A candidate as a record holds it: what has its default value is left out."""
    named = ("document", "title", "heading", "start", "end")
    places = {
        f"{stage}_{what}": one[stage][what]
        for stage in ("dense", "bm25")
        for what in ("rank", "score")
        if one[stage]
    }
    reranked = {"rerank_score": one["rerank"]["score"]} if one["rerank"] else {}
    fate = {} if one["fate"] == "too far down" else {"fate": one["fate"]}
    chunk = {name: one[name] for name in named} | {"id": one["chunk"], "number": 0, "text": ""}
    return {"chunk": chunk, "score": one["fused"]["score"]} | places | reranked | fate


def searched_record(identity: str, question: str, script: Script = DEFAULT) -> dict[str, Any]:
    """A recorded exchange with its query, its judgement and, if the script explains, its candidates."""
    record = exchange_record(identity, {"message": question}, script)
    if script.explain is not None:
        query = script.explain["query"]
        record["query"] = {name: query[name] for name in ("texts", "hypothetical")}
        record["query"]["narrowing"] = query["filter"]
        record["explained"] = [_recorded(one) for one in script.explain["candidates"]]
    if script.answerable is not None:
        record["judgement"] = {"probability": script.answerable, "threshold": 0.5}
    if script.outcome == "abstained":
        record["prompt"] = None
    return record
