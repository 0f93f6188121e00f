"""A server with an OpenAI embeddings API for tests; it can be told to fail."""

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from tests.fakes import LetterEmbedder


def embedding_server(embedder: LetterEmbedder, instead: Response | None = None) -> FastAPI:
    """The app; it answers out of order, as the API allows, or with `instead`."""
    app = FastAPI()

    @app.post("/v1/embeddings")
    async def embeddings(asked: dict[str, Any]) -> Response:
        assert asked["model"] == "letters"
        assert len(asked["input"]) <= 64
        if instead is not None:
            return instead
        vectors = await embedder.embed(asked["input"])
        found = [
            {"object": "embedding", "index": place, "embedding": (vector * 3).tolist()}
            for place, vector in enumerate(vectors)
        ]
        return JSONResponse({"object": "list", "model": "letters", "data": found[::-1]})

    return app
