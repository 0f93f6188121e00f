"""The knobs of the pool of LLM servers: which one gets an answer, and what is done when one fails."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


def _of_a_server(url: str) -> str:
    if not re.fullmatch("https?://.+|asgi://.+:.+", url):
        raise ValueError("must begin with http:// or https://, or be asgi://module:factory")
    return url


def _over_http(url: str | None) -> str | None:
    if not url:  # what an unset variable comes as in compose files
        return None
    if not re.fullmatch(r"https?://[^\s/].*", url, re.IGNORECASE):
        raise ValueError("must begin with http:// or https://")
    return url


LlmUrl = Annotated[str, AfterValidator(_of_a_server)]
HttpUrl = Annotated[str | None, AfterValidator(_over_http)]


def name_of(url: str) -> str:
    """What a server is called where people read it: host and port, without path and credentials."""
    return urlsplit(url).netloc.rpartition("@")[2] or url.partition("://")[2]


class Group(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ReplicaSettings(Group):
    """One of several LLM servers with the same model."""

    url: LlmUrl
    weight: float = Field(1.0, gt=0)
    """Its share of the work, relative to the others."""
    name: str | None = None
    """What it is called where people read it; None takes host and port."""


class PoolSettings(Group):
    """What holds for all LLM servers together. Deadlines and pauses are in seconds."""

    replicas: tuple[ReplicaSettings, ...] = ()
    """Several LLM servers in place of `url`."""
    resolve_seconds: float = Field(0.0, ge=0)
    """How often the name in `url` is resolved, each of its addresses a server of its own; 0: never."""
    choice: Literal["least_tokens", "prefix", "round_robin"] = "least_tokens"
    """Which server gets an answer; see docs/upstreams.md."""
    load_bound: float = Field(1.25, gt=1)
    """What `prefix` lets a server run, in means of the pool."""
    retries: int = Field(2, ge=0, le=10)
    """Attempts after the first one, before the first content."""
    retry_share: float = Field(0.2, ge=0)
    retry_floor: float = Field(10.0, ge=0)
    """Retries and hedges: at most this share of requests, or so many a second if that is more."""
    backoff: float = Field(0.1, gt=0)
    """Longest first pause before the same server is asked again, in seconds; doubles each time."""
    longest_pause: float = Field(5.0, gt=0)
    """A server that wants to be left alone for longer (Retry-After) is not waited for."""
    hedge: bool = False
    """Whether a second server is asked when the first content is later than its 95th percentile."""
    hedge_share: float = Field(0.025, ge=0, le=1)
    """Most tokens that hedges may take, of all, by our estimate of what they take."""
    fallback_after: float = Field(10.0, gt=0)
    """Longest time until the first content while another model can still be asked."""
    resume: Literal["auto", "off"] = "auto"
    """Whether a plain answer whose server dies is gone on with by another one."""
    eject_after: float = Field(3.0, gt=0)
    """A server gets nothing after so many failures in a row, until it answers a probe."""
    probe_seconds: float = Field(1.0, gt=0)
    """How often servers are looked after; one that has just left sooner."""
    probe_deadline: float = Field(5.0, gt=0)
    stall_deadline: float = Field(10.0, gt=0)
    """A server with running answers that says nothing for so long is asked for its progress."""

    @field_validator("replicas")
    @classmethod
    def _told_apart(cls, replicas: tuple[ReplicaSettings, ...]) -> tuple[ReplicaSettings, ...]:
        names = [one.name or name_of(one.url) for one in replicas]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice: give each server a `name` of its own")
        return replicas
