"""Asks a running business API: what `business-api ask` does."""

from typing import Any

import aiohttp

from business_api.errors import ServiceError, Unavailable


async def ask_server(url: str, question: str, assistant: str | None, key: str | None) -> dict[str, Any]:
    """The answer of `POST /chat`. Raises ServiceError with what the server said, Unavailable without one."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"message": question} | ({"assistant": assistant} if assistant else {})
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{url.rstrip('/')}/chat", json=body) as reply,
        ):
            answered: dict[str, Any] = await reply.json()
    except (aiohttp.ClientError, ValueError) as exc:
        raise Unavailable(
            f"no business API answers at {url}: start one with business-api serve, or name it with --url"
        ) from exc
    if reply.status == 401:
        raise ServiceError(
            "this service needs an API key: use --key, or make one with: business-api keys create NAME"
        )
    if "error" in answered:
        raise ServiceError(f"{answered['error']['message']} (HTTP {reply.status})")
    return answered
