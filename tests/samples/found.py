"""What a retrieval of given texts and scores brings."""

from collections.abc import Sequence

from business_api.exchange import Found
from business_api.passages import Candidate, Chunk, Passage


def chunk(text: str, number: int = 0, title: str = "Kilns") -> Chunk:
    return Chunk(id=f"c{number}", document="d", title=title, number=number, start=0, end=len(text), text=text)


def found(*texts: str, dense: Sequence[float] = (0.7, 0.3), bm25: Sequence[float] = (9.0, 2.0)) -> Found:
    """The texts, best first, each with its place in both searches: one that has no score did not find it."""
    candidates = tuple(
        Candidate(
            chunk=chunk(text, place),
            dense_rank=place + 1 if place < len(dense) else None,
            dense_score=dense[place] if place < len(dense) else None,
            bm25_rank=place + 1 if place < len(bm25) else None,
            bm25_score=bm25[place] if place < len(bm25) else None,
        )
        for place, text in enumerate(texts)
    )
    passages = tuple(Passage(one.chunk, 1.0) for one in candidates)
    return Found(passages=passages, index="kb", timings_ms={}, candidates=candidates)
