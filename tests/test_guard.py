"""The guard at the door: who is let in, and how often."""

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from business_api.assistants import Assistant
from business_api.errors import InvalidRequest, RateLimited, Unauthenticated
from business_api.exchange import Outcome
from business_api.guard import Caller, Guard
from business_api.keys import Limits
from business_api.settings import ROOT, GuardSettings, Settings
from business_api.usage import Usage
from tests.clocks import Clock
from tests.exchanges import exchange
from tests.fakes import Notebook

HOST = "127.0.0.1:8000"
NO_KEY = Caller("default")


@pytest.fixture
def guards(tmp_path: Path) -> Iterator[Any]:
    """Makes guards with these settings, all over one file of keys."""
    made: list[Guard] = []

    def make(clock: Clock | None = None, host: str = "127.0.0.1", **knobs: Any) -> Guard:
        settings = Settings(var=tmp_path, host=host, guard=GuardSettings(**knobs))
        made.append(Guard.open(settings, clock or Clock()))
        return made[-1]

    yield make
    for guard in made:
        guard.close()


@pytest.fixture
def guard(guards: Any) -> Guard:
    """The guard of a service on loopback."""
    return guards()  # type: ignore[no-any-return]


@pytest.fixture
def strict(guards: Any) -> Guard:
    """The guard of a service that others can reach."""
    return guards(host="0.0.0.0")  # type: ignore[no-any-return]


async def test_a_key_lets_its_owner_in(strict: Guard) -> None:
    secret = strict.keys.create("ann", "acme")
    caller = await strict.admit(f"Bearer {secret}", "anything.example")
    assert caller == Caller("acme", secret[:12], "ann")
    assert await strict.admit(f"bearer  {secret} ", None) == caller


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwdw==", "tdm_abc"])
async def test_without_a_key_nobody_gets_in_where_one_is_required(
    strict: Guard, authorization: str | None
) -> None:
    with pytest.raises(Unauthenticated, match="send an API key"):
        await strict.admit(authorization, HOST)


@pytest.mark.parametrize("secret", ["tdm_" + "a" * 43, "sk-other", "tdm_", "tdm_\xe9", "' OR 1=1 --"])
async def test_a_wrong_key_is_refused(strict: Guard, secret: str) -> None:
    strict.keys.create("ann", "acme")
    with pytest.raises(Unauthenticated, match="wrong or was revoked") as caught:
        await strict.admit(f"Bearer {secret}", HOST)
    assert secret not in caught.value.message


async def test_a_key_with_a_right_start_and_a_wrong_end_is_refused(strict: Guard) -> None:
    secret = strict.keys.create("ann", "acme")
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    with pytest.raises(Unauthenticated):
        await strict.admit(f"Bearer {wrong}", HOST)


async def test_a_revoked_key_is_refused_at_once_by_a_running_guard(strict: Guard, tmp_path: Path) -> None:
    secret = strict.keys.create("ann", "acme")
    await strict.admit(f"Bearer {secret}", HOST)
    code = (
        "import pathlib, sys; from business_api.keys import Keys\n"
        "print(Keys(pathlib.Path(sys.argv[1])).revoke(sys.argv[2]))"
    )
    command = (sys.executable, "-c", code, str(tmp_path / "keys.sqlite"), secret[:12])
    elsewhere = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert (await elsewhere.communicate())[0] == b"True\n"
    with pytest.raises(Unauthenticated):
        await strict.admit(f"Bearer {secret}", HOST)


async def test_a_wrong_or_revoked_key_is_refused_even_where_none_is_required(guard: Guard) -> None:
    secret = guard.keys.create("ann", "acme")
    assert (await guard.admit(f"Bearer {secret}", HOST)).tenant == "acme"
    guard.keys.revoke(secret[:12])
    for wrong in (secret, "tdm_unknown"):
        with pytest.raises(Unauthenticated):
            await guard.admit(f"Bearer {wrong}", HOST)


@pytest.mark.parametrize("authorization", [None, "Bearer none", "Bearer sk-placeholder", "Basic x"])
async def test_where_no_key_is_required_a_placeholder_is_no_key(
    guard: Guard, authorization: str | None
) -> None:
    assert await guard.admit(authorization, HOST) == NO_KEY


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
async def test_our_own_names_are_accepted_while_no_key_is_required(guard: Guard, host: str) -> None:
    assert await guard.admit(None, host) == NO_KEY


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "127.0.0.1.evil.example:80", "localhost@evil.example", "::1", ":80"]
)
async def test_a_host_that_is_not_ours_is_refused_while_no_key_is_required(
    guard: Guard, host: str | None
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await guard.admit(None, host)
    assert caught.value.param == "host"


async def test_a_key_may_be_required_on_loopback_too(guards: Any) -> None:
    with pytest.raises(Unauthenticated):
        await guards(require_keys="always").admit(None, HOST)


async def test_who_asks_too_often_is_told_when_to_come_back(guards: Any) -> None:
    clock = Clock()
    guard = guards(clock, requests_per_minute=2)
    await guard.admit(None, HOST)
    clock.now += 20
    await guard.admit(None, HOST)
    with pytest.raises(RateLimited, match="more than 2 requests in a minute") as caught:
        await guard.admit(None, HOST)
    assert caught.value.retry_after == 41
    clock.now += 41
    await guard.admit(None, HOST)
    with pytest.raises(RateLimited):
        await guard.admit(None, HOST)


async def test_each_key_has_its_own_allowance_and_callers_without_one_share_one(guards: Any) -> None:
    guard = guards(requests_per_minute=1)
    first, second = (guard.keys.create(name, "acme") for name in ("ann", "bob"))
    for authorization in (None, f"Bearer {first}", f"Bearer {second}"):
        await guard.admit(authorization, HOST)
    for authorization in (None, "Bearer placeholder", f"Bearer {first}"):
        with pytest.raises(RateLimited):
            await guard.admit(authorization, HOST)


async def test_limits_of_a_key_are_changed_while_the_guard_runs(guards: Any) -> None:
    guard = guards(requests_per_minute=1)
    secret = guard.keys.create("ann", "acme", Limits(requests_per_minute=2))
    for _ in range(2):
        await guard.admit(f"Bearer {secret}", HOST)
    with pytest.raises(RateLimited):
        await guard.admit(f"Bearer {secret}", HOST)
    guard.keys.limit(secret[:12], Limits(requests_per_minute=0))
    for _ in range(9):
        await guard.admit(f"Bearer {secret}", HOST)


async def test_a_wrong_key_spends_nothing(guards: Any) -> None:
    guard = guards(requests_per_minute=1)
    secret = guard.keys.create("ann", "acme")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await guard.admit(f"Bearer {secret[:-1]}-", HOST)
    assert (await guard.admit(f"Bearer {secret}", HOST)).key_name == "ann"


@pytest.mark.parametrize("seed", range(2))
async def test_every_exchange_gives_back_what_it_did_not_spend(guards: Any, seed: int) -> None:
    guard, chance, kept = guards(tokens_per_minute=4000), random.Random(seed), Notebook()
    record, used = guard.settling(kept.record), 0
    for number in range(300):
        ended = exchange(
            str(number),
            outcome=chance.choice(list(Outcome)),
            prompt=None,
            usage=chance.choice([None, Usage(1, 2, 3)]),
        )
        await guard.reserve(ended.question, Assistant(name="plain", max_tokens=1000))
        record(ended)
        used += 3 if ended.usage else 0
    await guard.reserve(exchange("last").question, Assistant(name="plain", max_tokens=1))
    left = int(guard.limit_headers(NO_KEY)["x-ratelimit-remaining-tokens"])
    assert left == 4000 - used - guard.spending.estimate(
        exchange().question, Assistant(name="plain", max_tokens=1)
    )
    assert (len(guard.limits.reserved), len(kept.exchanges)) == (1, 300)
