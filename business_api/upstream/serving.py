"""What a replica serves, and whether it can answer now."""

import asyncio

import msgspec

from business_api.deadlines import HEADER
from business_api.errors import Unavailable, UpstreamTimeout, UpstreamUnavailable
from business_api.settings import LlmSettings
from business_api.transport import whole
from business_api.upstream.asked import Asked
from business_api.upstream.replica import Replica


def headers(settings: LlmSettings, asked: Asked | None = None) -> dict[str, str]:
    """Our key; of a request its type, its id, and the milliseconds that are left for it."""
    key = settings.api_key
    ours = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    if asked is None:
        return ours
    left = str(max(1, int(asked.left * 1000)))
    return ours | {"Content-Type": "application/json", "X-Request-Id": asked.request_id, HEADER: left}


async def served_model(replica: Replica, settings: LlmSettings) -> str:
    """The served name asked for; notes it, and who made the server.

    Raises UpstreamUnavailable when the server does not list it, UpstreamTimeout.
    """
    try:
        async with asyncio.timeout(settings.connect_deadline + 3):
            reply = await replica.transport.send("GET", "/models", b"", headers(settings))
            raw = await whole(reply)
    except TimeoutError as exc:
        raise UpstreamTimeout("the LLM server does not answer in time") from exc
    try:
        listed = {model["id"]: model.get("owned_by") for model in msgspec.json.decode(raw)["data"]}
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, AttributeError) as exc:
        raise _unlisted(reply.status) from exc
    wanted = settings.model or next(iter(listed), None)
    if wanted is None or wanted not in listed:
        raise UpstreamUnavailable(f"the LLM server does not serve {settings.model or 'any model'}")
    replica.model, replica.maker = wanted, str(listed[wanted])
    return wanted


def _unlisted(status: int) -> UpstreamUnavailable:
    """It sent no list of models: what is most probably wrong with the settings."""
    if status in (401, 403):
        return UpstreamUnavailable("the LLM server refused our credentials", retry_after=30)
    hint = "; base URLs mostly end with /v1" if status == 404 else ""
    return UpstreamUnavailable(f"the LLM server does not list its models (status {status}){hint}")


async def problem_of(replica: Replica, settings: LlmSettings) -> str | None:
    """Why the replica cannot answer now, None when it lists its model."""
    try:
        await served_model(replica, settings)
    except Unavailable as exc:
        return exc.message
    return None


async def says_a_token(replica: Replica, settings: LlmSettings) -> bool:
    """Whether it generates one token before the probe's deadline: the only proof that it works."""
    try:
        async with asyncio.timeout(settings.probe_deadline):
            model = await served_model(replica, settings)
            asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
            sent = headers(settings) | {"Content-Type": "application/json"}
            reply = await replica.transport.send(
                "POST", "/chat/completions", msgspec.json.encode(asked), sent
            )
            await whole(reply)
    except (TimeoutError, Unavailable):
        return False
    return reply.status == 200
