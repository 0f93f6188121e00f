"""The replicas of the LLM tier: who is in, who gets an answer, who comes and goes."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from business_api.pool_settings import name_of
from business_api.settings import LlmSettings
from business_api.transport import Transport, open_transport
from business_api.upstream.asked import Asked
from business_api.upstream.choosing import chooser
from business_api.upstream.replica import Replica

MAY_BE_BACK = 0.5
"""Seconds after which it is worth while to see again whether a replica that is out is back."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a replica is: its OpenAI base URL, and its share of the work."""

    url: str
    weight: float = 1.0
    name: str = ""


class Pool:
    """Replicas by address. Never empty."""

    def __init__(self, replicas: Sequence[Replica], settings: LlmSettings, prefix: str = "") -> None:
        self._settings, self._prefix = settings, prefix
        self._choose = chooser(settings.choice, settings.load_bound)
        self._by_address: dict[Address, Replica] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.replicas = list(replicas)

    @classmethod
    def single(cls, transport: Transport, settings: LlmSettings) -> "Pool":
        """A pool of one, whose transport belongs to the caller."""
        return cls([Replica(name_of(settings.url), transport, model=settings.model)], settings)

    @classmethod
    def open(cls, addresses: Sequence[Address], settings: LlmSettings, prefix: str = "") -> "Pool":
        """A pool of these addresses, at least one; names begin with `prefix`. Needs a running event loop."""
        pool = cls([], settings, prefix)
        pool.become(addresses)
        return pool

    def become(self, addresses: Sequence[Address]) -> None:
        """Take in what is new, and let go what is gone: it finishes its answers, then it is closed."""
        for address in addresses:
            if address not in self._by_address:
                self._by_address[address] = self._replica(address)
        for address in [known for known in self._by_address if known not in addresses]:
            leaver = self._by_address.pop(address)
            leaver.leaving = True
            task = asyncio.create_task(_closed_when_idle(leaver, self._settings.total_deadline))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self.replicas = list(self._by_address.values())

    def _replica(self, address: Address) -> Replica:
        settings = self._settings
        root, alone = None, False
        if not address.url.startswith("asgi://"):
            parts = urlsplit(address.url)
            root = open_transport(f"{parts.scheme}://{parts.netloc}", settings.connect_deadline)
            alone = parts.path.strip("/") == "v1"  # behind another path, the root may be a stranger's
        return Replica(
            self._prefix + (address.name or name_of(address.url)),
            open_transport(address.url, settings.connect_deadline),
            weight=address.weight,
            root=root,
            model=settings.model,
            counts_tokens=alone,
            strikes_out=settings.eject_after,
        )

    def first(self, asked: Asked) -> Replica:
        """Who is asked. When all are out, one of them is asked all the same: it may be back."""
        if len(self.replicas) == 1:
            return self.replicas[0]
        return self.another(asked) or self.again(asked) or _longest_untried(self.replicas)

    def another(self, asked: Asked) -> Replica | None:
        """Who is asked instead of those that have been tried; None when no other one is in."""
        return self._chosen(
            [one for one in self.replicas if one.out is None and one not in asked.tried], asked
        )

    def again(self, asked: Asked) -> Replica | None:
        """Who may be asked a second time, after a pause; None when all are out."""
        return self._chosen([one for one in self.replicas if one.out is None], asked)

    def perhaps_back(self, asked: Asked) -> Replica | None:
        """Who has not failed this request and may have come back unseen; None: all were tried just now."""
        untried = [
            one
            for one in self.replicas
            if one not in asked.tried and one.clock() - one.tried_at >= MAY_BE_BACK
        ]
        return _longest_untried(untried) if untried else None

    def _chosen(self, inside: list[Replica], asked: Asked) -> Replica | None:
        """One of those that do not want to be left alone for now, or, if all do, one of all."""
        ready = [replica for replica in inside if not replica.busy]
        return self._choose(ready or inside, asked) if inside else None

    def models(self) -> frozenset[str]:
        """Served names that the replicas are asked for, as far as they are known."""
        return frozenset(replica.model for replica in self.replicas if replica.model is not None)

    @property
    def all_out(self) -> bool:
        """Whether no replica is in."""
        return all(replica.out is not None for replica in self.replicas)

    def silent_since(self, moment: float) -> bool:
        """Whether no replica has said anything since then, on their clock: all are out, or hang."""
        return all(one.out is not None or one.heard_at < moment for one in self.replicas)

    def out(self) -> Mapping[str, str]:
        """Replicas that get nothing now, and why."""
        return {replica.name: replica.out for replica in self.replicas if replica.out is not None}

    def ejected(self) -> Mapping[str, float]:
        """1 for each replica that is out, 0 for one that is in."""
        return {replica.name: float(replica.out is not None) for replica in self.replicas}

    def outstanding(self) -> Mapping[str, float]:
        """Tokens that each replica has still to read or to say, by our estimate."""
        return {replica.name: replica.outstanding for replica in self.replicas}

    async def aclose(self) -> None:
        """Close all connections, those to replicas that are leaving too."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for replica in self._by_address.values():
            await _close(replica)


def _longest_untried(outside: Sequence[Replica]) -> Replica:
    return min(outside, key=lambda one: one.tried_at)


async def _closed_when_idle(replica: Replica, patience: float) -> None:
    """Close the replica once its last answer has ended, or after `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            await replica.idle()
    except TimeoutError:
        log.warning("%s has left the pool with %d answers unfinished", replica.name, replica.running)
    finally:
        await _close(replica)


async def _close(replica: Replica) -> None:
    with suppress(OSError):
        await replica.transport.aclose()
    if replica.root is not None:
        with suppress(OSError):
            await replica.root.aclose()
