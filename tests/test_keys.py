"""API keys: made, shown once, kept as hashes, revoked."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from business_api.keys import Keys, Limits
from business_api.keys_cli import keys as cli
from business_api.settings import Settings


def test_a_secret_is_shown_once_and_kept_nowhere(tmp_path: Path) -> None:
    with closing(Keys(tmp_path / "var" / "keys.sqlite")) as keys:
        secret = keys.create("ann", "acme")
        assert secret.startswith("tdm_")
        assert len(secret) == 47
        (key,) = keys.list()
        assert (key.id, key.name, key.tenant, key.revoked) == (secret[:12], "ann", "acme", None)
        files = list((tmp_path / "var").iterdir())
        assert all(secret[12:].encode() not in path.read_bytes() for path in files)
        assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_a_revoked_key_stays_listed_and_a_key_that_never_was_is_not_revoked(tmp_path: Path) -> None:
    with closing(Keys(tmp_path / "keys.sqlite")) as keys:
        secret = keys.create("ann", "acme")
        assert keys.revoke(secret[:12])
        (first,) = keys.list()
        assert keys.revoke(secret[:12])
        assert keys.list() == [first]
        assert first.revoked is not None
        assert keys.find(secret) is None
        assert not keys.revoke("tdm_unknown_")


def test_a_file_that_holds_no_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(ValueError, match=r"keys\.sqlite"):
        Keys.open(Settings(var=tmp_path))


def test_a_key_keeps_limits_of_its_own(tmp_path: Path) -> None:
    with closing(Keys(tmp_path / "keys.sqlite")) as keys:
        plain, limited = keys.create("ann", "acme"), keys.create("bob", "acme", Limits(tokens_per_day=5))
        assert [key.limits for key in keys.list()] == [Limits(), Limits(tokens_per_day=5)]
        assert keys.limit(plain[:12], Limits(requests_per_minute=0))
        assert keys.limit(limited[:12], Limits())
        assert not keys.limit("tdm_unknown_", Limits())
        found = [keys.find(secret) for secret in (plain, limited)]
        assert [key and key.limits for key in found] == [Limits(requests_per_minute=0), Limits()]


def test_keys_of_a_file_from_before_there_were_limits_stay_valid(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    with closing(Keys(path)) as keys:
        secret = keys.create("ann", "acme")
    with closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE keys DROP COLUMN limits")
        assert "limits" not in file.execute("SELECT sql FROM sqlite_master").fetchone()[0]
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: Keys(path), range(8)))
    for keys in opened:
        found = keys.find(secret)
        assert found is not None
        assert (found.name, found.limits) == ("ann", Limits())
        keys.close()


def test_limits_are_given_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSINESS_API_VAR", str(tmp_path))
    made = CliRunner().invoke(
        cli, ["create", "ann", "--tokens-per-day", "500", "--tokens-per-minute", "none"]
    )
    (key,) = Keys(tmp_path / "keys.sqlite").list()
    assert made.exit_code == 0
    assert key.limits == Limits(tokens_per_day=500, tokens_per_minute=0)
    changed = CliRunner().invoke(cli, ["limit", key.id, "--requests-per-minute", "7"])
    (key,) = Keys(tmp_path / "keys.sqlite").list()
    assert (changed.exit_code, changed.stderr) == (0, f"{key.id}: 7 requests per minute\n")
    assert key.limits == Limits(requests_per_minute=7)
    assert CliRunner().invoke(cli, ["limit", "tdm_unknown_"]).exit_code == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "many", "", "9" * 30])
def test_a_limit_is_a_whole_number_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("BUSINESS_API_VAR", str(tmp_path))
    assert CliRunner().invoke(cli, ["create", "ann", f"--tokens-per-day={wrong}"]).exit_code == 2
    assert not (tmp_path / "keys.sqlite").exists()
