"""A Qdrant server for tests: the REST interface, as far as we use it, over qdrant-client's local mode.

It checks that what we send is what the server's published models accept; it has no engine of its own. As a
server in strict mode it filters by nothing that has no index.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from qdrant_client import AsyncQdrantClient, models

ENVELOPE: dict[str, Any] = {"time": 0.0, "status": "ok"}


def front(client: AsyncQdrantClient) -> FastAPI:
    """The app. Unknown collections are 404, as on a server."""
    app = FastAPI(dependencies=[Depends(_strict)])
    app.state.indexed = defaultdict(set)
    _aliases(app, client)
    _collections(app, client)
    _points(app, client)
    _searches(app, client)
    return app


async def _strict(request: Request) -> None:
    indexed = request.app.state.indexed[request.path_params.get("name")]
    asked = await request.json() if await request.body() else None
    for key in _filtered_by(asked):
        if key not in indexed:
            raise HTTPException(400, f"Bad request: Index required but not found for {key!r}")


def _filtered_by(asked: Any) -> Iterator[str]:
    """The payload fields of the conditions in what was asked."""
    if isinstance(asked, dict):
        if "key" in asked and asked.keys() & {"match", "range"}:
            yield asked["key"]
        asked = list(asked.values())
    for inner in asked if isinstance(asked, list) else ():
        yield from _filtered_by(inner)


def _answer(result: Any) -> dict[str, Any]:
    return ENVELOPE | {"result": result}


def _aliases(app: FastAPI, client: AsyncQdrantClient) -> None:
    @app.get("/aliases")
    async def aliases() -> Any:
        return _answer(await client.get_aliases())

    @app.post("/collections/aliases")
    async def change_aliases(asked: models.ChangeAliasesOperation) -> Any:
        return _answer(await client.update_collection_aliases(asked.actions))


def _collections(app: FastAPI, client: AsyncQdrantClient) -> None:
    @app.get("/collections")
    async def collections() -> Any:
        return _answer(await client.get_collections())

    @app.delete("/collections/{name}")
    async def drop(name: str) -> Any:
        await _there(client, name)
        app.state.indexed.pop(name, None)
        return _answer(await client.delete_collection(name))

    @app.get("/collections/{name}")
    async def collection(name: str) -> Any:
        await _there(client, name)
        return _answer(await client.get_collection(name))

    @app.get("/collections/{name}/exists")
    async def exists(name: str) -> Any:
        return _answer({"exists": await client.collection_exists(name)})

    @app.put("/collections/{name}")
    async def create(name: str, asked: models.CreateCollection) -> Any:
        made = await client.create_collection(
            name,
            vectors_config=asked.vectors,
            sparse_vectors_config=asked.sparse_vectors,
            metadata=asked.metadata,
        )
        return _answer(made)

    @app.put("/collections/{name}/index")
    async def index(name: str, asked: models.CreateFieldIndex) -> Any:
        app.state.indexed[name].add(asked.field_name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _answer(await client.create_payload_index(name, asked.field_name, asked.field_schema))


def _points(app: FastAPI, client: AsyncQdrantClient) -> None:
    @app.put("/collections/{name}/points")
    async def upsert(name: str, asked: models.PointsList) -> Any:
        await _there(client, name)
        return _answer(await client.upsert(name, asked.points))

    @app.post("/collections/{name}/points")
    async def retrieve(name: str, asked: models.PointRequest) -> Any:
        await _there(client, name)
        return _answer(await client.retrieve(name, asked.ids))

    @app.post("/collections/{name}/points/payload")
    async def payload(name: str, asked: models.SetPayload) -> Any:
        assert asked.filter is not None
        return _answer(await client.set_payload(name, asked.payload, points=asked.filter))

    @app.post("/collections/{name}/points/delete")
    async def delete(name: str, asked: models.FilterSelector) -> Any:
        return _answer(await client.delete(name, asked))


def _searches(app: FastAPI, client: AsyncQdrantClient) -> None:
    @app.post("/collections/{name}/points/query/batch")
    async def query(name: str, asked: models.QueryRequestBatch) -> Any:
        await _there(client, name)
        return _answer(await client.query_batch_points(name, asked.searches))

    @app.post("/collections/{name}/points/scroll")
    async def scroll(name: str, asked: models.ScrollRequest) -> Any:
        await _there(client, name)
        found, after = await client.scroll(
            name,
            asked.filter,
            asked.limit or 10,
            offset=asked.offset,
            with_payload=asked.with_payload or True,
        )
        return _answer({"points": found, "next_page_offset": after})

    @app.post("/collections/{name}/facet")
    async def facet(name: str, asked: models.FacetRequest) -> Any:
        await _there(client, name)
        return _answer(await client.facet(name, asked.key, asked.filter, asked.limit or 10))

    @app.post("/collections/{name}/points/count")
    async def count(name: str, asked: models.CountRequest) -> Any:
        await _there(client, name)
        return _answer(await client.count(name, asked.filter, exact=bool(asked.exact)))


async def _there(client: AsyncQdrantClient, name: str) -> None:
    if not await client.collection_exists(name):
        raise HTTPException(404)
