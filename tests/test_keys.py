"""API keys: made, shown once, kept as hashes, revoked."""

from contextlib import closing
from pathlib import Path

import pytest

from business_api.keys import Keys
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
