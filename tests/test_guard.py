"""The guard at the door: who is let in, and how often."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from business_api.errors import InvalidRequest, RateLimited, Unauthenticated
from business_api.guard import Allowance, Caller, Guard
from business_api.settings import ROOT, GuardSettings, Settings

HOST = "127.0.0.1:8000"
NO_KEY = Caller("default")


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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


def test_a_key_lets_its_owner_in(strict: Guard) -> None:
    secret = strict.keys.create("ann", "acme")
    caller = strict.admit(f"Bearer {secret}", "anything.example")
    assert caller == Caller("acme", secret[:12], "ann")
    assert strict.admit(f"bearer  {secret} ", None) == caller


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwdw==", "tdm_abc"])
def test_without_a_key_nobody_gets_in_where_one_is_required(strict: Guard, authorization: str | None) -> None:
    with pytest.raises(Unauthenticated, match="send an API key"):
        strict.admit(authorization, HOST)


@pytest.mark.parametrize("secret", ["tdm_" + "a" * 43, "sk-other", "tdm_", "tdm_\xe9", "' OR 1=1 --"])
def test_a_wrong_key_is_refused(strict: Guard, secret: str) -> None:
    strict.keys.create("ann", "acme")
    with pytest.raises(Unauthenticated, match="wrong or was revoked") as caught:
        strict.admit(f"Bearer {secret}", HOST)
    assert secret not in caught.value.message


def test_a_key_with_a_right_start_and_a_wrong_end_is_refused(strict: Guard) -> None:
    secret = strict.keys.create("ann", "acme")
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    with pytest.raises(Unauthenticated):
        strict.admit(f"Bearer {wrong}", HOST)


def test_a_revoked_key_is_refused_at_once_by_a_running_guard(strict: Guard, tmp_path: Path) -> None:
    secret = strict.keys.create("ann", "acme")
    strict.admit(f"Bearer {secret}", HOST)
    code = (
        "import pathlib, sys; from business_api.keys import Keys\n"
        "print(Keys(pathlib.Path(sys.argv[1])).revoke(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "keys.sqlite"), secret[:12]]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == "True\n"
    with pytest.raises(Unauthenticated):
        strict.admit(f"Bearer {secret}", HOST)


def test_a_wrong_or_revoked_key_is_refused_even_where_none_is_required(guard: Guard) -> None:
    secret = guard.keys.create("ann", "acme")
    assert guard.admit(f"Bearer {secret}", HOST).tenant == "acme"
    guard.keys.revoke(secret[:12])
    for wrong in (secret, "tdm_unknown"):
        with pytest.raises(Unauthenticated):
            guard.admit(f"Bearer {wrong}", HOST)


@pytest.mark.parametrize("authorization", [None, "Bearer none", "Bearer sk-placeholder", "Basic x"])
def test_where_no_key_is_required_a_placeholder_is_no_key(guard: Guard, authorization: str | None) -> None:
    assert guard.admit(authorization, HOST) == NO_KEY


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_our_own_names_are_accepted_while_no_key_is_required(guard: Guard, host: str) -> None:
    assert guard.admit(None, host) == NO_KEY


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "127.0.0.1.evil.example:80", "localhost@evil.example", "::1", ":80"]
)
def test_a_host_that_is_not_ours_is_refused_while_no_key_is_required(guard: Guard, host: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        guard.admit(None, host)
    assert caught.value.param == "host"


def test_a_key_may_be_required_on_loopback_too(guards: Any) -> None:
    with pytest.raises(Unauthenticated):
        guards(require_keys="always").admit(None, HOST)


def test_who_asks_too_often_is_told_when_to_come_back(guards: Any) -> None:
    clock = Clock()
    guard = guards(clock, requests_per_minute=2)
    guard.admit(None, HOST)
    clock.now += 20
    guard.admit(None, HOST)
    with pytest.raises(RateLimited) as caught:
        guard.admit(None, HOST)
    assert caught.value.retry_after == 40
    assert guard.limits_left(NO_KEY) == Allowance(2, 0, 40)
    clock.now += 40
    guard.admit(None, HOST)
    with pytest.raises(RateLimited):
        guard.admit(None, HOST)


def test_each_key_has_its_own_allowance_and_callers_without_one_share_one(guards: Any) -> None:
    guard = guards(requests_per_minute=1)
    first, second = (guard.keys.create(name, "acme") for name in ("ann", "bob"))
    for authorization in (None, f"Bearer {first}", f"Bearer {second}"):
        guard.admit(authorization, HOST)
    for authorization in (None, "Bearer placeholder", f"Bearer {first}"):
        with pytest.raises(RateLimited):
            guard.admit(authorization, HOST)


def test_what_is_left_is_told_without_counting(guards: Any) -> None:
    guard = guards(requests_per_minute=3)
    assert guard.limits_left(NO_KEY).remaining == 3
    caller = guard.admit(None, HOST)
    assert guard.limits_left(caller) == guard.limits_left(caller) == Allowance(3, 2, 60)
