"""Watches the pool: ejects replicas that hang, probes those that are out, follows their DNS name."""

import asyncio
import logging
import time

from business_api.errors import Unavailable, UpstreamUnavailable
from business_api.settings import LlmSettings
from business_api.upstream.addresses import addresses_of
from business_api.upstream.pool import Pool
from business_api.upstream.progress import Counters, counters
from business_api.upstream.replica import Replica
from business_api.upstream.serving import says_a_token

TICKS = 10
"""A replica that has left is probed after this part of a round, then after twice as long each time."""

log = logging.getLogger(__name__)


class Watch:
    """`run` it beside a pool, until it is cancelled. `elsewhere`: who waits can go to another pool."""

    def __init__(self, pool: Pool, settings: LlmSettings, *, elsewhere: bool = False) -> None:
        self._pool, self._settings, self._elsewhere = pool, settings, elsewhere
        self._resolved_at = time.monotonic()
        self._looks: dict[Replica, asyncio.Task[None]] = {}
        self._resolving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look after every replica once a round, all at the same time; after those that have left sooner."""
        try:
            while True:
                await asyncio.sleep(self._settings.probe_seconds / TICKS)
                try:
                    await self.round()
                except Exception:  # a bug in one round must not end the watch
                    log.exception("a round of the watch over the LLM servers failed")
        finally:
            for look in (*self._looks.values(), self._resolving):
                if look is not None:
                    look.cancel()

    async def round(self) -> None:
        """Begin to look at every replica whose turn it is, and at the DNS name when it is time."""
        if self._name_due():  # a resolver that hangs must not hold up the looks
            self._resolving = asyncio.create_task(self._follow_name())
        self._looks = {one: look for one, look in self._looks.items() if not look.done()}
        for one in self._pool.replicas:  # one that hangs must not hold up the looks at others
            if one not in self._looks and self.due(one):
                self._looks[one] = asyncio.create_task(self._look(one))

    async def _look(self, replica: Replica) -> None:
        try:
            await self._look_after(replica)
        except Exception:
            log.exception("a look at the LLM server %s failed", replica.name)

    def due(self, replica: Replica) -> bool:
        """Whether its turn has come."""
        pause = self._settings.probe_seconds
        if replica.out is not None:
            pause = min(pause, max(pause / TICKS, replica.looked_at - replica.out_since))
        return replica.clock() - replica.looked_at >= pause

    def _name_due(self) -> bool:
        every = self._settings.resolve_seconds
        if not every or self._settings.replicas or (self._resolving and not self._resolving.done()):
            return False
        return time.monotonic() - self._resolved_at >= every

    async def _follow_name(self) -> None:
        self._resolved_at = time.monotonic()
        try:
            self._pool.become(await addresses_of(self._settings))
        except UpstreamUnavailable as exc:
            log.warning("%s; those known are kept", exc.message)
        except Exception:
            log.exception("the name of the LLM servers could not be followed")

    async def _look_after(self, replica: Replica) -> None:
        if replica.out is not None:
            replica.tried_at = replica.looked_at = replica.clock()
            if await says_a_token(replica, self._settings):
                replica.readmit()
            elif self._stalled(replica):
                replica.cut_off()
            return
        if not self._stalled(replica):
            return
        replica.looked_at = replica.clock()
        if not await self._advances(replica):
            replica.eject("it makes no progress")
            replica.cut_off()

    def _stalled(self, replica: Replica) -> bool:
        """Whether it seems to hang with answers that others could give."""
        silent = replica.running and replica.clock() - replica.heard_at > self._settings.stall_deadline
        return bool(silent) and (self._elsewhere or len(self._pool.replicas) > 1)

    async def _advances(self, replica: Replica) -> bool:
        """Whether the model makes steps; without counters that say so, whether it says a token in time."""
        try:
            before = await self._counters(replica)
            if before is None or not before.running:
                return await says_a_token(replica, self._settings)
            until = time.monotonic() + self._settings.stall_deadline
            while time.monotonic() < until and replica.running:
                await asyncio.sleep(self._settings.stall_deadline / 10)
                now = await self._counters(replica)
                if now is None or now.steps != before.steps or not now.running:
                    return True
        except Unavailable:
            return False
        return not replica.running

    async def _counters(self, replica: Replica) -> Counters | None:
        return await counters(replica.root, self._settings.connect_deadline) if replica.root else None
