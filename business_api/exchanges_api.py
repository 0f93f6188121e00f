"""The exchanges that were recorded: as JSON, as a page, and what readers thought of them."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from business_api.errors import UnknownExchange
from business_api.exchange import Exchange, Outcome
from business_api.guard import Guard
from business_api.sink import Sink
from business_api.wire import admitted, json_response, page, read_json


class Wanted(BaseModel):
    """Which exchanges: `before` is the `next` of the page before; `text` is looked for in both texts."""

    limit: int = Field(50, ge=1, le=500)
    before: str | None = None
    outcome: Outcome | None = None
    text: str | None = Field(None, max_length=1000)
    conversation: str | None = None


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """What a reader thought of an answer."""

    rating: Literal["up", "down"]
    comment: Annotated[str, msgspec.Meta(max_length=4000)] | None = None


FRESH = {"Vary": "Accept", "Cache-Control": "no-store"}
"""The page and its JSON share an address: neither may stand in for the other."""
_feedback = msgspec.json.Decoder(Feedback)


@dataclass(frozen=True)
class ExchangesApi:
    """Handlers over the sink. What was recorded before a request is seen by it."""

    guard: Guard
    sink: Sink
    max_body_bytes: int

    def router(self) -> APIRouter:
        """The routes below /exchanges."""
        router = APIRouter(prefix="/exchanges")
        router.get("")(self.exchanges)
        router.get("/{exchange_id}")(self.exchange)
        router.post("/{exchange_id}/feedback")(self.feedback)
        return router

    async def exchanges(self, request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """The exchanges of this tenant, newest first; a page for browsers."""
        if _wants_page(request):
            return page("exchanges.html")
        caller = await admitted(self.guard, request)
        found = await asyncio.to_thread(self._listed, caller.tenant, wanted)
        shown = found[: wanted.limit]
        return json_response(
            {"exchanges": shown, "next": shown[-1].id if len(found) > len(shown) else None}, FRESH
        )

    def _listed(self, tenant: str, wanted: Wanted) -> list[Any]:
        """One more than wanted, if there is: then there is a next page."""
        self.sink.drain_now()
        return list(self.sink.store.list(tenant, **wanted.model_dump() | {"limit": wanted.limit + 1}))

    async def exchange(self, exchange_id: str, request: Request) -> Response:
        """One exchange with its passages, final prompt, answer and timings; a page for browsers."""
        if _wants_page(request):
            return page("exchanges.html")
        caller = await admitted(self.guard, request)
        found = await asyncio.to_thread(self._one, caller.tenant, exchange_id)
        return json_response({"id": found.id, **msgspec.to_builtins(found)}, FRESH)

    def _one(self, tenant: str, exchange_id: str) -> Exchange:
        self.sink.drain_now()
        found = self.sink.store.get(tenant, exchange_id)
        if found is None:
            raise UnknownExchange(f"no exchange {exchange_id[:64]!r}")
        return found

    async def feedback(self, exchange_id: str, request: Request) -> Response:
        """Keep what a reader thought of an answer."""
        caller = await admitted(self.guard, request)
        said = await read_json(request, _feedback, self.max_body_bytes)
        await asyncio.to_thread(self._one, caller.tenant, exchange_id)
        await asyncio.to_thread(
            self.sink.store.add_feedback, caller.tenant, exchange_id, said.rating, said.comment
        )
        return json_response({"exchange": exchange_id, "rating": said.rating}, FRESH)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
