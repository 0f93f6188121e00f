"""Where the LLM servers are: those that the settings name, or all addresses of one name."""

import asyncio
import socket
from urllib.parse import urlsplit, urlunsplit

from business_api.errors import UpstreamUnavailable
from business_api.settings import LlmSettings
from business_api.upstream.pool import Address


async def addresses_of(settings: LlmSettings) -> list[Address]:
    """Every server of the tier, at least one. Raises UpstreamUnavailable when a name cannot be resolved."""
    if settings.replicas:
        return [Address(one.url, one.weight, one.name or "") for one in settings.replicas]
    if settings.resolve_seconds:
        return await _resolved(settings.url)
    return [Address(settings.url)]


async def _resolved(url: str) -> list[Address]:
    """One address for each one of the name: a headless service of Kubernetes has one for each replica."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise UpstreamUnavailable(f"the name of the LLM servers, {host}, cannot be resolved") from exc
    hosts = sorted({str(where[0]) for *_, where in found})
    places = [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]
    return [Address(urlunsplit((parts.scheme, place, parts.path, "", ""))) for place in places]
