"""Asks a model behind a company's or our own HTTP API, and says our errors in place of theirs."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import aiohttp
import msgspec
from pydantic import SecretStr

from business_api.errors import RetrievalUnavailable

KEPT_ALIVE = 4.0
"""Seconds; vLLM closes idle connections after 5."""

Answer = TypeVar("Answer")


class Rejected(RetrievalUnavailable):
    """The server did not take the call as it was (400)."""


def open_session(api_key: SecretStr | None) -> aiohttp.ClientSession:
    """Connections to one server, each call with the key if there is one."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=32, keepalive_timeout=KEPT_ALIVE),
        headers={"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else None,
    )


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    asked: Mapping[str, Any],
    answer: type[Answer],
    *,
    server: str,
    deadline: float,
) -> Answer:
    """The JSON that POST `url` answers within `deadline` seconds, as an `answer`.

    Raises Rejected, RetrievalUnavailable; both call the other side `server`, and repeat no word of it.
    """
    try:
        async with asyncio.timeout(deadline):
            async with session.post(url, json=asked) as response:
                if response.status == 400:
                    raise Rejected(f"{server} refused the call")
                if response.status != 200:
                    raise RetrievalUnavailable(f"{server} failed")
                return msgspec.json.decode(await response.read(), type=answer)
    except TimeoutError as exc:
        raise RetrievalUnavailable(f"{server} did not answer in time") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise RetrievalUnavailable(f"{server} cannot be reached") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RetrievalUnavailable(f"{server} answered something else than what was asked for") from exc
