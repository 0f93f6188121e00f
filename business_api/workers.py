"""What `serve --workers N` runs: which part of the settings each worker takes, and what they cannot share."""

import socket
from collections.abc import Callable
from importlib import import_module

import typer
import uvloop

from business_api.assistants import Assistants
from business_api.serving import Place, announce, serve_forever
from business_api.settings import Settings
from business_api.supervising import Supervisor
from business_api.terminal import run


def serve_workers(bound: socket.socket, settings: Settings, read: Callable[[], Settings]) -> int:
    """Serve with `settings.workers` processes on the address of `bound` until a signal; the exit code.

    Each worker reads the settings anew. Raises ValueError if they cannot share what is named.
    """
    check_shareable(settings)
    if settings.store.url:
        import_module("business_api.vector_store.qdrant_versions")  # half of all pages: to be shared
    if settings.guard.limits_url:
        import_module("business_api.redis_windows")

    def work(listening: socket.socket, number: int, place: Place) -> int:
        try:
            fresh = read().model_copy(update={"workers": settings.workers})
            run(_one(fresh, number, listening, place), uvloop.run)
        except typer.Exit as left:  # it has said why
            return left.exit_code
        return 0

    supervisor = Supervisor(bound, settings.workers, work, settings.stop_deadline)
    return supervisor.run(lambda: announce(settings, supervisor.address))


async def _one(settings: Settings, number: int, listening: socket.socket, place: Place) -> None:
    check_shareable(settings)
    await serve_forever(share_of(settings, number), listening, place)


def check_shareable(settings: Settings) -> None:
    """Raises ValueError if several workers cannot share what these settings name."""
    searching = [one.name for one in Assistants.load(settings.assistants) if one.collection]
    if searching and settings.store.url is None:
        raise ValueError(
            f"{settings.workers} workers cannot share the embedded index, which one process may open at a "
            f"time, and the assistant {searching[0]!r} searches it: start a Qdrant server and set "
            "BUSINESS_API_STORE__URL, or serve with one worker"
        )


def share_of(settings: Settings, number: int) -> Settings:
    """The settings of worker `number` (from 0) of `settings.workers`, with its part of the limits.

    The parts add up to the whole, but each is at least 1 where 0 would refuse everything. What keys may spend
    is split by the guard, which knows the limits that keys have of their own.
    """

    def part(whole: int, least: int = 1) -> int:
        return max(least, (whole + number) // settings.workers)

    llm, guard = settings.llm, settings.guard
    places = {
        name: part(getattr(llm, name)) for name in ("max_in_flight", "min_in_flight", "start_in_flight")
    }
    rest = {"max_queued": part(llm.max_queued, 0), "retry_floor": llm.retry_floor / settings.workers}
    rate = {"limits_shared_by": guard.limits_shared_by * settings.workers}
    fallbacks = {
        name: one.model_copy(
            update={
                "retry_floor": one.retry_floor / settings.workers,
                "max_in_flight": part(one.max_in_flight),
            }
        )
        for name, one in settings.llm_fallbacks.items()
    }
    return settings.model_copy(
        update={
            "llm": llm.model_copy(update={**places, **rest}),
            "llm_fallbacks": fallbacks,
            "guard": guard.model_copy(update=rate),
        }
    )
