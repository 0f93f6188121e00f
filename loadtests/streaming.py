"""Reads one streamed answer over a plain connection, and takes its times. Works under gevent."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec


class Broken(Exception):
    """The answer was refused, broke off, or ended without a reason. Says how."""


@dataclass
class Times:
    """An answer as its reader saw it; milliseconds since the question was sent. `tokens` counts deltas
    until the server tells the usage."""

    arrivals: list[float] = field(default_factory=list)
    e2e: float = 0.0
    tokens: int = 0
    size: int = 0
    conversation: str | None = None
    hung_up: bool = False

    @property
    def ttft(self) -> float | None:
        """Time to the first delta with text; None if there was none."""
        return self.arrivals[0] if self.arrivals else None

    @property
    def itl(self) -> float | None:
        """Mean time between deltas."""
        if len(self.arrivals) < 2:
            return None
        return (self.arrivals[-1] - self.arrivals[0]) / (len(self.arrivals) - 1)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first one, by the time they took."""
        itl = self.itl
        return None if not itl else (self.tokens - 1) / (itl * (len(self.arrivals) - 1)) * 1000


def listen(
    url: str, path: str, body: object, *, key: str | None = None, hang_up_after: int | None = None
) -> Times:
    """Ask, and read the answer to its end, or hang up after so many deltas. Raises Broken."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=600)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    began = time.perf_counter()
    try:
        connection.request("POST", path, msgspec.json.encode(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise Broken(f"status {response.status}: {_message(response.read())}")
        return _heard(_payloads(response), began, hang_up_after)
    except (OSError, HTTPException) as exc:
        raise Broken(f"{type(exc).__name__}") from exc
    finally:
        connection.close()


def _payloads(lines: "Iterator[bytes] | Any") -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            found = msgspec.json.decode(line[5:])
            assert isinstance(found, dict)
            yield found


def _heard(payloads: Iterator[dict[str, Any]], began: float, hang_up_after: int | None) -> Times:
    times, finished = Times(), False
    for payload in payloads:
        if payload.get("error"):
            raise Broken(f"in the stream: {payload['error'].get('message')}")
        text = _text(payload)
        if text:
            times.arrivals.append((time.perf_counter() - began) * 1000)
            times.tokens += 1
            times.size += len(text)
        if hang_up_after is not None and len(times.arrivals) >= hang_up_after:
            times.hung_up = True
            return times
        times.tokens = (payload.get("usage") or {}).get("completion_tokens") or times.tokens
        times.conversation = payload.get("conversation") or times.conversation
        finished = finished or _finished(payload)
    if not finished:
        raise Broken("the stream ended without a finish_reason")
    times.e2e = (time.perf_counter() - began) * 1000
    return times


def _text(payload: dict[str, Any]) -> str:
    """The text of an OpenAI chunk or of a `/chat` delta event."""
    choices = payload.get("choices")
    if choices is None:
        return str(payload.get("text") or "")
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def _finished(payload: dict[str, Any]) -> bool:
    choices = payload.get("choices")
    if choices is None:
        return payload.get("finish_reason") is not None
    return bool(choices) and choices[0].get("finish_reason") not in (None, "abort")


def _message(raw: bytes) -> str:
    try:
        return str(msgspec.json.decode(raw)["error"]["message"])[:120]
    except (msgspec.DecodeError, KeyError, TypeError):
        return "no message"
