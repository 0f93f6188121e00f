"""For operators: `/healthz` (the process is alive), `/readyz` (it can answer now), `/metrics`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse

Problem = Callable[[], Awaitable[str | None]]
"""Says why a part cannot work now, or None."""
Scrape = Callable[[], Awaitable[bytes]]
"""The metrics in Prometheus's text format."""


@dataclass(frozen=True)
class OpsApi:
    """`problems` maps the parts that answering needs to what says whether they work.

    `lacking` are parts that others stand in for. `out` names LLM servers that get nothing now, and why;
    others answer for them.
    """

    problems: Mapping[str, Problem]
    scrape: Scrape
    out: Callable[[], Mapping[str, str]] = dict
    lacking: Mapping[str, Problem] = field(default_factory=dict)

    def router(self) -> APIRouter:
        """The operators' routes; they need no key and are never limited."""
        router = APIRouter()
        router.api_route("/healthz", methods=["GET", "HEAD"])(self.healthz)
        router.get("/readyz")(self.readyz)
        router.get("/metrics")(self.metrics)
        return router

    async def healthz(self) -> Response:
        """200 while the process serves requests, whatever the LLM tier does."""
        return JSONResponse({"status": "alive"})

    async def readyz(self) -> Response:
        """200 when a question could be answered now, else 503 that names what is missing; who is out."""
        missing, degraded = await asyncio.gather(_found(self.problems), _found(self.lacking))
        status = "not ready" if missing else "degraded" if degraded else "ready"
        return JSONResponse(
            {"status": status, "missing": missing, "degraded": degraded, "out": dict(self.out())},
            503 if missing else 200,
            headers={"Retry-After": "2"} if missing else None,
        )

    async def metrics(self) -> Response:
        """Prometheus text format."""
        return Response(await self.scrape(), media_type=CONTENT_TYPE_LATEST)


async def _found(problems: Mapping[str, Problem]) -> dict[str, str]:
    """What is wrong now, by part."""
    found = await asyncio.gather(*(problem() for problem in problems.values()))
    return {part: said for part, said in zip(problems, found, strict=True) if said}
