"""What the commands share: settings or a clear line, work or a clear line, exit codes 0, 1 and 2."""

import asyncio
import os
import sys
import tomllib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from business_api.errors import Refused, ServiceError
from business_api.settings import Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "BUSINESS_API_"


def read_settings(**given: Any) -> Settings:
    """Settings from arguments, environment and file; what is wrong with them is one line, exit code 2."""
    for name in _unknown_variables():
        print(f"business-api: {name} names no setting and is ignored", file=sys.stderr)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except SettingsError as exc:
        fail(f"settings: {_unread(exc)}", code=2)
    except tomllib.TOMLDecodeError as exc:
        fail(f"settings: {os.environ.get(PREFIX + 'FILE', 'business_api.toml')}: {exc}", code=2)
    except OSError as exc:
        fail(f"settings: {exc}", code=2)
    except ValidationError as exc:
        fail(f"settings: {'; '.join(_wrong(error) for error in exc.errors())}", code=2)


def _wrong(error: "ErrorDetails") -> str:
    """Which setting, by the name of its variable, and what is wrong with it."""
    name = PREFIX + "__".join(str(part).upper() for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    if error["type"] == "model_type":
        return f'{name}: is a group of settings, written as JSON, such as \'{{"name": "value"}}\''
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


def _unread(exc: SettingsError) -> str:
    """Which variable is not JSON: the error itself names only the group, the cause holds the text."""
    text = getattr(exc.__cause__, "doc", None)
    names = [name for name, value in os.environ.items() if name.startswith(PREFIX) and value == text]
    such_as = """such as '["a", "b"]' or '{"name": "value"}'"""
    return f"{' or '.join(names) or exc}: lists and groups are written as JSON, {such_as}"


def _unknown_variables() -> list[str]:
    """Variables that look like settings. No error: Kubernetes sets BUSINESS_API_SERVICE_HOST and others."""
    known = {"file", *Settings.model_fields}
    ours = [name for name in os.environ if name.startswith(PREFIX)]
    first = {name: name.removeprefix(PREFIX).partition("__")[0].lower() for name in ours}
    kubernetes = ("service_", "port_")
    return sorted(
        name for name in ours if first[name] not in known and not first[name].startswith(kubernetes)
    )


def run(
    work: Coroutine[Any, Any, Any], runner: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run
) -> Any:
    """Run it; what an operator can mend is one line and exit code 1."""
    with mendable():
        return runner(work)


@contextmanager
def mendable() -> Iterator[None]:
    """What an operator can mend is one line and exit code 1; what a caller sent wrongly, exit code 2."""
    try:
        yield
    except (ServiceError, ValueError, OSError) as exc:
        fail(str(exc), code=2 if isinstance(exc, Refused) else 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(message: str, *, code: int) -> NoReturn:
    """Say it on stderr and leave."""
    say(message)
    raise typer.Exit(code)


def say(message: str) -> None:
    """One line to the operator, on stderr."""
    print(f"business-api: {message}", file=sys.stderr, flush=True)
