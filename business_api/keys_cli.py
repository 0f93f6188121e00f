"""The commands `business-api keys ...`."""

import json
import sys
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from business_api.keys import ID_LENGTH, Keys
from business_api.settings import Settings
from business_api.terminal import fail, read_settings

keys = typer.Typer(no_args_is_help=True, help="API keys: stored hashed, shown once.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key this is, for your own records.")],
    tenant: Annotated[str | None, typer.Option(help="Whose documents it opens.")] = None,
) -> None:
    """Make a key. It is printed once and cannot be shown again.

    Example: business-api keys create alice
    """
    if not name.strip():
        fail("a key needs a name, for your own records", code=2)
    settings = read_settings()
    print(_keys(settings).create(name, tenant or settings.tenant))
    print("Keep it now: only its hash is stored.", file=sys.stderr)


@keys.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List keys: id, name, tenant, whether revoked. Example: business-api keys list"""
    found = _keys(read_settings()).list()
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    table = Table("id", "name", "tenant", "created", "revoked")
    for key in found:
        table.add_row(key.id, key.name, key.tenant, _date(key.created), _date(key.revoked))
    Console().print(table)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The id that `keys list` shows.")]) -> None:
    """Revoke a key; running services refuse it at once. Example: business-api keys revoke ID"""
    shown = key_id[:ID_LENGTH]  # whoever pastes the whole key does not see it again
    if not _keys(read_settings()).revoke(shown):
        fail(f"no key {shown}; see: business-api keys list", code=1)
    print(f"{shown} is revoked: running services refuse it from now on", file=sys.stderr)


def _keys(settings: Settings) -> Keys:
    try:
        return Keys.open(settings)
    except ValueError as exc:
        fail(str(exc), code=1)


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
