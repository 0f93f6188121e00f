"""A server with `/rerank` in vLLM's form for tests; it can be told to fail."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests.fake_reranker import FakeReranker

KNOWN = {"model", "query", "documents", "truncate_prompt_tokens"}


def rerank_server(
    reranker: FakeReranker, *, instead: Response | None = None, max_words: int | None = None
) -> FastAPI:
    """The app; the best comes first, as the API has it.

    It answers with `instead` if there is one, and refuses texts of more than `max_words` unless told to cut.
    """
    app = FastAPI()

    @app.post("/v1/rerank")
    async def rerank(asked: dict[str, Any], request: Request) -> Response:
        assert asked["model"] == reranker.name
        assert set(asked) <= KNOWN
        if instead is not None:
            return instead
        texts: list[str] = asked["documents"]
        if max_words and any(len(text.split()) > max_words for text in texts):
            if "truncate_prompt_tokens" not in asked:
                return JSONResponse({"error": {"message": "secret", "code": 400}}, 400)
            texts = [" ".join(text.split()[:max_words]) for text in texts]
        scores = await reranker.score(asked["query"], texts)
        found = [
            {"index": place, "document": {"text": text, "multi_modal": None}, "relevance_score": score}
            for place, (text, score) in enumerate(zip(texts, scores, strict=True))
        ]
        found.sort(key=lambda one: float(str(one["relevance_score"])), reverse=True)
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse({"id": "score-1", "model": reranker.name, "usage": usage, "results": found})

    return app
