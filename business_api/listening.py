"""Listens for the caller while there is work for it: who hangs up is worked for no longer."""

import asyncio
from types import TracebackType

from starlette.types import Receive

from business_api.errors import CallerGone
from business_api.one_write import when_gone


class CallerListens:
    """Around work for a caller: when the caller hangs up it is cancelled, and ends in CallerGone.

    The body must have been read: what is received after it is the end of the connection.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._forget = (
            when_gone(self._receive, self._leave) or task.get_loop().create_task(self._watch()).cancel
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        self._forget()
        del self._forget, self._task  # they know us: a circle that only the garbage collection would end
        if self._gone and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise CallerGone("the caller hung up") from exc

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._task.cancel()
