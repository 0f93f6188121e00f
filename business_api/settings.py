"""Every knob, with its default and what it does. Built once, in `app.py`.

Sources, strongest first: environment variables `BUSINESS_API_*` (nested with `__`), the TOML file named by
`BUSINESS_API_FILE` (business_api.toml if it exists), these defaults.
"""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from business_api.pool_settings import Group, HttpUrl, LlmUrl, PoolSettings

ROOT = Path(__file__).resolve().parent.parent


def _fits_a_header(key: SecretStr) -> SecretStr:
    if not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
        raise ValueError("holds a line break or a character beyond ASCII, and cannot be sent: take it out")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_fits_a_header)]


class QueueSettings(Group):
    """The queue in front of the LLM tier. Fallbacks have none of their own, only `max_in_flight`."""

    max_in_flight: int = Field(1024, ge=1)
    """Most questions at once that are being answered; the limit below it is found by itself. A fallback takes
    so many texts at once, and no more."""
    min_in_flight: int = Field(4, ge=1)
    """The limit never falls below this."""
    start_in_flight: int = Field(64, ge=1)
    """The limit when the service starts; more wait in the queue."""
    tolerated_queue: float = Field(0.25, gt=0)
    """Longest wait in the LLM server's own queue, in seconds, before fewer are let through to it."""
    tolerated_pace: float = Field(0.15, gt=0)
    """Seconds that each further token of an answer may take, before fewer are let through at once."""
    max_queued: int = Field(256, ge=0)
    """Waiting requests; more are answered 503 or 429 with Retry-After."""
    queue_deadline: float = Field(10.0, gt=0)
    """Longest wait in our queue; who would wait longer than half of it is refused at once."""


class LlmSettings(PoolSettings, QueueSettings):
    """The LLM tier, as seen from here."""

    url: LlmUrl = "http://127.0.0.1:8001/v1"
    """OpenAI base URL of the LLM server, or `asgi://module:factory` to run its ASGI app in this process."""
    model: str | None = None
    """Served name to ask for; None takes the first one that the server lists."""
    api_key: ApiKey | None = None
    context_tokens: int = Field(2048, ge=256)
    """Context length of the model, prompt and answer together."""
    bytes_per_token: float = Field(3.0, gt=0.5)
    """UTF-8 bytes that a token is at least worth: the estimate that fits prompts into the context."""
    connect_deadline: float = 2.0
    first_delta_deadline: float = 120.0
    delta_deadline: float = 30.0
    """Longest gap between two deltas, in seconds."""
    total_deadline: float = 600.0


class EmbeddingSettings(Group):
    """What turns text into vectors."""

    kind: Literal["onnx", "sentence-transformers", "hosted"] = "onnx"
    folder: Path = Path("models/all-minilm-l6-v2")
    """Folder with model.onnx and tokenizer.json, relative to `var`."""
    model: str = "all-minilm-l6-v2"
    """Name kept with the index: an index of another model is refused. `hosted` asks for it."""
    url: HttpUrl = None
    """Base URL of a hosted OpenAI embeddings API."""
    dimension: int | None = None
    """Length of a hosted model's vectors; None asks for one when the service starts."""
    api_key: ApiKey | None = None
    threads: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    support: bool = False
    """Whether vectors decide about cited sentences whose words leave it open; see docs/citations.md."""
    cache: int = 4096
    """Questions whose vectors are kept in memory."""
    deadline: float = 5.0


class RerankSettings(Group):
    """What reads a question and a passage together, to put the best passages first."""

    kind: Literal["none", "onnx", "sentence-transformers", "hosted"] = "none"
    folder: Path = Path("models/reranker")
    """Folder of a cross-encoder, relative to `var`: model.onnx and tokenizer.json, or what
    sentence-transformers loads."""
    model: str | None = None
    """Name that `hosted` asks for; `sentence-transformers` loads the published model of this name, if set, in
    place of the folder."""
    url: HttpUrl = None
    """Base URL of a hosted API with `/rerank`, such as http://gpu-box:8002/v1 for vLLM."""
    api_key: ApiKey | None = None
    threads: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    """Threads of the ONNX model."""
    deadline: float = Field(0.5, gt=0)
    """Longest time to rerank; passages keep their order when it is over."""


class StoreSettings(Group):
    """Where chunks and their vectors are kept."""

    url: HttpUrl = None
    """A Qdrant server; None uses the embedded engine in `var/index`, which one process may open at a time."""
    api_key: ApiKey | None = None
    deadline: float = 5.0


class RewritingSettings(Group):
    """The short calls of the LLM that rewrite a question before retrieval."""

    deadline: float = Field(4.0, gt=0)
    """Longest time of all of them together, in seconds; what is late is left out."""
    max_tokens: int = Field(64, ge=16)
    """Longest text that one of them may write, in tokens; the JSON of a narrowing may be twice as long."""


class GuardSettings(Group):
    """What is refused before any work is done."""

    require_keys: Literal["auto", "always"] = "auto"
    """`auto` asks for an API key unless the service listens on loopback only."""
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Accepted `Host` names while no key is required: no page elsewhere can reach us."""
    max_body_bytes: int = 4 * 1024 * 1024
    max_question_chars: int = 100_000
    requests_per_minute: int | None = Field(600, ge=1)
    """Per key, unless the key has a limit of its own; callers without a key share one. None: no limit."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Prompt and answer together, reserved by an estimate and corrected to the usage."""
    tokens_per_day: int | None = Field(None, ge=1)
    """In any 24 hours."""
    limits_url: SecretStr | None = Field(None, min_length=1)
    """A Redis server that counts for all processes and hosts; None counts in each process by itself."""
    limits_deadline: float = Field(0.25, gt=0)
    """Longest time that Redis may take to count, in seconds."""
    when_limits_away: Literal["local", "allow", "refuse"] = "local"
    """While Redis is away: limit in each process by itself, limit nothing, or answer 503."""
    limits_shared_by: int = Field(1, ge=1)
    """Processes that a key's limits are split among while there is no Redis to share them."""
    priorities: dict[str, Literal["high", "normal", "low"]] = Field({})
    """Classes of keys, by the id that `business-api keys list` shows; a key that is not named is normal."""


class SinkSettings(Group):
    """Where exchanges are recorded."""

    segment_bytes: int = 1024 * 1024
    """A spool segment is closed and synced at this size. It is read at once: memory grows by a multiple of it
    when the store has been held up. Measured at 2,300 answers/s, 3 s held up: 0.8 MB; with 8 MiB 5.2 MB."""
    drain_seconds: float = 0.2
    """Longest time an exchange waits in the spool before it is in the store."""
    spool_bytes: int = Field(1024**3, ge=4096)
    """Most that one process keeps while the store cannot take it; more is dropped, and counted."""
    content: Literal["on", "redacted", "off"] = "on"
    """What is kept of what people wrote and read: everything, all but what looks like an address, a number or
    a key, or nothing. Conversations continue from what was kept."""


class Settings(BaseSettings):
    """All settings of the business API."""

    model_config = SettingsConfigDict(
        env_prefix="BUSINESS_API_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=64)
    """Processes that serve; each takes its part of the limits."""
    stop_deadline: float = Field(20.0, gt=0)
    """Longest time that running answers get when the service stops, in seconds."""
    var: Path = ROOT / "var"
    """Everything written at run time: models, index, spool, exchanges, keys."""
    prompts: Path = ROOT / "prompts"
    assistants: Path = ROOT / "assistants.toml"
    calibration: Path | None = None
    """How scores become probabilities for assistants that abstain; None takes the one that came along."""
    tenant: str = "default"
    """Tenant of callers without a key, and of `ingest`."""
    answer_cache_bytes: int = Field(64 * 1024 * 1024, ge=0)
    """Most memory that kept answers take, in each process; which are kept is said by the assistant."""
    llm: LlmSettings = LlmSettings()
    llm_fallbacks: dict[str, LlmSettings] = Field({})
    """Models to fall back on, by the name that assistants call them by in `fallbacks`."""
    embedding: EmbeddingSettings = EmbeddingSettings()
    rerank: RerankSettings = RerankSettings()
    store: StoreSettings = StoreSettings()
    rewriting: RewritingSettings = RewritingSettings()
    guard: GuardSettings = GuardSettings()
    sink: SinkSettings = SinkSettings()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return self.host == "localhost" or (_is_address(self.host) and ip_address(self.host).is_loopback)

    @property
    def keys_required(self) -> bool:
        """Whether a caller must show an API key."""
        return self.guard.require_keys == "always" or not self.on_loopback

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        named = os.environ.get("BUSINESS_API_FILE")
        file = Path(named or "business_api.toml")
        if named and not file.is_file():
            raise FileNotFoundError(f"BUSINESS_API_FILE names no file: {named}")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
