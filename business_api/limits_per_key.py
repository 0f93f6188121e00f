"""What each key may spend: requests and tokens a minute, tokens a day.

A request is counted when it comes in. Tokens are reserved by an estimate before any work is done, and
corrected to what was spent when the exchange ends, however it ends.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from business_api.errors import InvalidRequest, RateLimited
from business_api.keys import ANONYMOUS, NO_LIMITS_OF_ITS_OWN, Limits
from business_api.windows import Allowance, Rate, Taken, Windows

REQUESTS = {"requests_per_minute": 60}
TOKENS = {"tokens_per_minute": 60, "tokens_per_day": 24 * 60 * 60}
"""Seconds of each limit."""
HEADERS = {"requests_per_minute": "requests", "tokens_per_minute": "tokens", "tokens_per_day": "tokens-day"}
"""What a rate is called in `x-ratelimit-limit-...`; the first two are OpenAI's names."""


class Bucket(msgspec.Struct, frozen=True):
    """Who spends, and how much it may: no rate, no limit."""

    name: str
    requests: tuple[Rate, ...]
    tokens: tuple[Rate, ...]


class _Reservation(msgspec.Struct, frozen=True):
    bucket: Bucket
    taken: Taken
    tokens: int


class LimitsPerKey:
    """Counts in `windows` what keys spend."""

    def __init__(self, windows: Windows, default: Limits, shared_by: int = 1) -> None:
        self._windows = windows
        self._default = default
        self._shared_by = shared_by
        self._buckets: dict[str | None, tuple[Limits, Bucket]] = {}
        self._reserved: dict[str, _Reservation] = {}
        self._left: dict[tuple[str, str], tuple[Allowance, ...]] = {}

    @property
    def reserved(self) -> Collection[str]:
        """Exchanges whose tokens are reserved and not yet settled."""
        return self._reserved.keys()

    def limits_tokens(self, key: str | None) -> bool:
        """Whether the tokens of this key are limited at all."""
        return bool(self._bucket(key).tokens)

    async def count(self, key: str | None, own: Limits) -> None:
        """Count a request of a key with limits of its own. Raises RateLimited, Unavailable."""
        bucket = self._bucket(key, own)
        if bucket.requests:
            await self._take(bucket, bucket.requests, 1)

    async def reserve(self, exchange: str, key: str | None, tokens: int) -> None:
        """Reserve tokens for an exchange of a key whose tokens are limited, until it is settled.

        Raises RateLimited, Unavailable, and InvalidRequest if they would never fit.
        """
        bucket = self._bucket(key)
        least = min(bucket.tokens, key=lambda rate: rate.limit)
        if tokens > least.limit:
            raise InvalidRequest(
                f"this may take {tokens} tokens; {_said(least)} are allowed{self._divided()}: "
                "lower max_tokens",
                param="max_tokens",
            )
        taken = await self._take(bucket, bucket.tokens, tokens)
        if taken.slots:
            self._reserved[exchange] = _Reservation(bucket, taken, tokens)

    def settle(self, exchange: str, spent: int) -> None:
        """Correct what was reserved for this exchange to what it spent. Harmless when nothing was."""
        held = self._reserved.pop(exchange, None)
        if held is not None and spent != held.tokens:
            self._windows.correct(held.bucket.name, held.bucket.tokens, held.taken, spent - held.tokens)

    def headers(self, key: str | None) -> dict[str, str]:
        """What was left when this key last spent, under OpenAI's names."""
        return self._headers(self._bucket(key))

    def _headers(self, bucket: Bucket) -> dict[str, str]:
        found: dict[str, str] = {}
        for rates in (bucket.requests, bucket.tokens):
            seen = self._left.get((bucket.name, rates[0].name), ()) if rates else ()
            for rate, left in zip(rates, seen, strict=False):
                name = HEADERS[rate.name]
                found[f"x-ratelimit-limit-{name}"] = str(left.limit)
                found[f"x-ratelimit-remaining-{name}"] = str(left.remaining)
                found[f"x-ratelimit-reset-{name}"] = _duration(left.reset_seconds)
        return found

    def _bucket(self, key: str | None, own: Limits | None = None) -> Bucket:
        """The rates of a key: its own limits over the default ones, as they were when it last came in."""
        known = self._buckets.get(key)
        if known is None or (own is not None and own != known[0]):
            own = own or NO_LIMITS_OF_ITS_OWN
            known = self._buckets[key] = own, self._made(key or ANONYMOUS, own)
        return known[1]

    def _made(self, name: str, own: Limits) -> Bucket:
        def rates(spans: Mapping[str, int]) -> tuple[Rate, ...]:
            found = ((rate, getattr(own, rate), getattr(self._default, rate)) for rate in spans)
            limits = ((rate, default if mine is None else mine) for rate, mine, default in found)
            return tuple(Rate(r, max(n // self._shared_by, 1), spans[r]) for r, n in limits if n)

        return Bucket(name, rates(REQUESTS), rates(TOKENS))

    def _divided(self) -> str:
        """Why that is less than the operator has set, and how to have all of it."""
        if self._shared_by == 1:
            return ""
        return f" by each of {self._shared_by} processes (BUSINESS_API_GUARD__LIMITS_URL makes them share)"

    async def _take(self, bucket: Bucket, rates: Sequence[Rate], amount: int) -> Taken:
        taken = await self._windows.take(bucket.name, rates, amount)
        self._left[bucket.name, rates[0].name] = taken.left
        if not taken.granted:
            short = [rate for rate, left in zip(rates, taken.left, strict=True) if left.remaining < amount]
            raise RateLimited(
                f"more than {' or '.join(map(_said, short))}; try again in {taken.wait:.1f} s",
                retry_after=taken.wait,
                headers=self._headers(bucket),
            )
        return taken


def _said(rate: Rate) -> str:
    units, _, span = rate.name.partition("_per_")
    return f"{rate.limit} {units if rate.limit > 1 else units[:-1]} in a {span}"


def _duration(seconds: float) -> str:
    """As OpenAI writes it, 6m0s; whole seconds, rounded up."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
