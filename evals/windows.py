"""The naive way of cutting that ours is compared with: windows of a fixed number of tokens that overlap."""

from collections.abc import Iterator

from tokenizers import Tokenizer

from business_api.ingest.chunking import Piece
from business_api.passages import Chunk
from evals.indexes import Cutting
from evals.sets import Document

TOKENS = 254
"""256 with the two special ones."""
OVERLAP = 32


def in_windows(tokenizer: Tokenizer, tokens: int = TOKENS, overlap: int = OVERLAP) -> Cutting:
    """Windows of so many tokens, each beginning `overlap` tokens before the last one's end."""

    def cut(document: Document) -> list[Piece]:
        return [
            Piece(
                Chunk(
                    id=f"{document.id}#{number:06}",
                    document=document.id,
                    title=document.title,
                    number=number,
                    start=start,
                    end=end,
                    text=document.text[start:end],
                ),
                document.text[start:end],
            )
            for number, (start, end) in enumerate(_windows(tokenizer, document.text, tokens, overlap))
        ]

    return Cutting(f"windows of {tokens} tokens, {overlap} shared", cut)


def _windows(tokenizer: Tokenizer, text: str, tokens: int, overlap: int) -> Iterator[tuple[int, int]]:
    places = tokenizer.encode(text, add_special_tokens=False).offsets
    for first in range(0, len(places), tokens - overlap):
        window = places[first : first + tokens]
        yield window[0][0], window[-1][1]
        if first + tokens >= len(places):
            return
