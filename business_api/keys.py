"""API keys: made once, shown once, kept as hashes in `keys.sqlite`, refused at once when revoked.

A key is 32 random bytes. Slow hashes protect what people choose, because that can be guessed; 256 random bits
cannot, so one SHA-256 keeps a stolen file useless and costs a request microseconds. A key's id is its first
twelve characters: enough to recognise it, while 208 random bits stay unknown.
"""

import hashlib
import hmac
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from business_api.errors import Unavailable
from business_api.settings import Settings
from business_api.sqlite_file import connect

PREFIX = "tdm_"
ID_LENGTH = 12
ANONYMOUS = "anonymous"
"""Who comes without a key: all of them count as one."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT NOT NULL, digest BLOB NOT NULL,
    created REAL NOT NULL, revoked REAL, limits TEXT
) WITHOUT ROWID
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key may spend. None: what the settings say; 0: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


_SHOWN = "id, name, tenant, created, limits, revoked"
_limits = msgspec.json.Decoder(Limits)
NO_LIMITS_OF_ITS_OWN = Limits()


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key; times in seconds of the epoch. The secret is not among it."""

    id: str
    name: str
    tenant: str
    created: float
    revoked: float | None = None
    limits: Limits = NO_LIMITS_OF_ITS_OWN


class Keys:
    """The keys of all tenants in one SQLite file, which several processes may use at once.

    Methods take microseconds (`create` and `revoke`: a disk sync). They raise Unavailable when the file
    cannot be used; the constructor raises ValueError, with its name, if it is no such file.
    """

    def __init__(self, path: Path, *, patience: float = 5.0) -> None:
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = connect(path, patience=patience)
            self._connection.execute(_SCHEMA)
            _add_limits(self._connection)
        except sqlite3.Error as exc:
            raise ValueError(f"{path}: this file of keys cannot be used: {exc}") from exc

    @classmethod
    def open(cls, settings: Settings) -> "Keys":
        """The keys in `settings.var`."""
        return cls(settings.var / "keys.sqlite")

    def create(self, name: str, tenant: str, limits: Limits = NO_LIMITS_OF_ITS_OWN) -> str:
        """Make a key and give its secret, which is kept nowhere."""
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO keys (id, name, tenant, digest, created, limits) VALUES (?, ?, ?, ?, ?, ?)",
                (secret[:ID_LENGTH], name, tenant, _digest(secret), time.time(), _json(limits)),
            )
        return secret

    def limit(self, key_id: str, limits: Limits) -> bool:
        """Give a key these limits from now on, in every process. False if there is no such key."""
        with self._connected() as connection:
            query = "UPDATE keys SET limits = ? WHERE id = ?"
            return connection.execute(query, (_json(limits), key_id)).rowcount > 0

    def list(self) -> list[Key]:
        """All keys, revoked ones included, oldest first."""
        with self._connected() as connection:
            rows = connection.execute(
                f"SELECT {_SHOWN} FROM keys ORDER BY created, id"  # noqa: S608
            ).fetchall()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> bool:
        """Refuse this key from now on, in every process. False if there is no such key."""
        with self._connected() as connection:
            query = "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ?"
            return connection.execute(query, (time.time(), key_id)).rowcount > 0

    def find(self, secret: str) -> Key | None:
        """The valid key with this secret. Read from the file each time, so that revoking works at once."""
        if not secret.isascii():
            return None
        with self._connected() as connection:
            row = connection.execute(
                f"SELECT {_SHOWN}, digest FROM keys WHERE id = ? AND revoked IS NULL",  # noqa: S608
                (secret[:ID_LENGTH],),
            ).fetchone()
        if row is None or not hmac.compare_digest(row[6], _digest(secret)):
            return None
        return _key(row)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as exc:
            raise Unavailable("the API keys cannot be read right now") from exc


def _add_limits(connection: sqlite3.Connection) -> None:
    """Files of earlier versions have no limits in them."""

    def there() -> bool:
        return any(row[1] == "limits" for row in connection.execute("PRAGMA table_info(keys)"))

    if there():
        return
    try:
        connection.execute("ALTER TABLE keys ADD COLUMN limits TEXT")
    except sqlite3.OperationalError:
        if not there():  # another process was faster
            raise


def _key(row: Sequence[Any]) -> Key:
    own = _limits.decode(row[4]) if row[4] else NO_LIMITS_OF_ITS_OWN
    return Key(id=row[0], name=row[1], tenant=row[2], created=row[3], limits=own, revoked=row[5])


def _json(limits: Limits) -> str | None:
    return msgspec.json.encode(limits).decode() if limits != NO_LIMITS_OF_ITS_OWN else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
