"""The commands `business-api keys ...`."""

import json
import re
import sys
import time
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from business_api.keys import ID_LENGTH, Keys, Limits
from business_api.settings import Settings
from business_api.terminal import fail, read_settings

NO_LIMIT = "none"


def _limit(said: str) -> int:
    """A number, or `none`: 0 stands for no limit."""
    if said == NO_LIMIT:
        return 0
    if not re.fullmatch("[1-9][0-9]{0,14}", said):
        raise typer.BadParameter(f"a whole number from 1 on, or {NO_LIMIT}")
    return int(said)


def _option(about: str) -> Any:
    about = f"{about}; none for no limit. Left out: as the settings say."
    return typer.Option(parser=_limit, metavar="N|none", help=about)


RequestsPerMinute = Annotated[int | None, _option("Requests in any minute")]
TokensPerMinute = Annotated[int | None, _option("Tokens of prompts and answers in any minute")]
TokensPerDay = Annotated[int | None, _option("Tokens in any 24 hours")]

keys = typer.Typer(no_args_is_help=True, help="API keys: stored hashed, shown once.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key this is, for your own records.")],
    tenant: Annotated[str | None, typer.Option(help="Whose documents it opens.")] = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    tokens_per_day: TokensPerDay = None,
) -> None:
    """Make a key. It is printed once and cannot be shown again.

    Example: business-api keys create alice --tokens-per-day 500000
    """
    if not name.strip():
        fail("a key needs a name, for your own records", code=2)
    settings = read_settings()
    limits = _limits(requests_per_minute, tokens_per_minute, tokens_per_day)
    print(_keys(settings).create(name, tenant or settings.tenant, limits))
    print("Keep it now: only its hash is stored.", file=sys.stderr)


@keys.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List keys: id, name, tenant, limits of its own, whether revoked. Example: business-api keys list"""
    found = _keys(read_settings()).list()
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    table = Table("id", "name", "tenant", "limits", "created", "revoked")
    for key in found:
        table.add_row(key.id, key.name, key.tenant, _said(key.limits), _date(key.created), _date(key.revoked))
    Console().print(table)


@keys.command("limit")
def limit_key(
    key_id: Annotated[str, typer.Argument(help="The id that `keys list` shows.")],
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    tokens_per_day: TokensPerDay = None,
) -> None:
    """Give a key other limits; they hold at once, and those left out are again as the settings say.

    Example: business-api keys limit ID --requests-per-minute 60
    """
    shown = key_id[:ID_LENGTH]
    limits = _limits(requests_per_minute, tokens_per_minute, tokens_per_day)
    if not _keys(read_settings()).limit(shown, limits):
        fail(f"no key {shown}; see: business-api keys list", code=1)
    print(f"{shown}: {_said(limits) or 'limits as the settings say'}", file=sys.stderr)


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


def _limits(
    requests_per_minute: int | None, tokens_per_minute: int | None, tokens_per_day: int | None
) -> Limits:
    return Limits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
    )


def _said(limits: Limits) -> str:
    own = {name.replace("_", " "): limit for name, limit in msgspec.structs.asdict(limits).items()}
    return ", ".join(f"{limit or 'no limit of'} {name}" for name, limit in own.items() if limit is not None)


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
