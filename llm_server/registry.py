"""The model registry: reads `models.toml`, finds models by name, checks digests, approves."""

import hashlib
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from llm_server.errors import InvalidRegistry, InvalidSetting, NotApproved, UnknownModel, WrongFiles

COMMIT = re.compile(r"[0-9a-f]{40}")
ENGINES = ("llama.cpp", "vllm")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the registry; `models.toml` explains the fields. `max_model_len` is in tokens.

    `files` maps the names of a local folder's files to sha256 digests; it is empty for a hub repository.
    """

    name: str
    description: str
    engine: Literal["llama.cpp", "vllm"]
    device: Literal["cpu", "gpu"]
    source: str
    licence: str
    max_model_len: int
    max_num_seqs: int
    served_name: str = ""
    revision: str | None = None
    files: Mapping[str, str] = {}
    dtype: str = "auto"
    quantization: str | None = None
    gpus: int = 1
    gpu_memory_gib: int | None = None
    gpu_memory_utilization: float = 0.9
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    template_arguments: Mapping[str, Any] = {}
    approved: bool = False

    @property
    def asked_for(self) -> str:
        """The name that callers put in `model`."""
        return self.served_name or self.name

    @property
    def local(self) -> bool:
        """Whether the files lie under `var/models`."""
        return bool(self.files)

    @property
    def pinned(self) -> bool:
        """Whether exactly one version of the weights can be meant."""
        return self.local or bool(COMMIT.fullmatch(self.revision or ""))

    def folder(self, var: Path) -> Path:
        """Where the files of a local model lie."""
        return var / "models" / self.source


class Registry:
    """All models of a registry file, by name."""

    def __init__(self, path: Path, models: list[Model]) -> None:
        self.path = path
        self.models = models

    @classmethod
    def load(cls, path: Path) -> "Registry":
        """Read a registry file. Raises InvalidRegistry that names the file, the entry and the field."""
        try:
            tables = tomllib.loads(_read(path))
        except tomllib.TOMLDecodeError as exc:
            raise InvalidRegistry(f"the registry {path} is not TOML: {exc}") from exc
        return cls(path, [_entry(path, name, table) for name, table in tables.items()])

    def find(self, name: str, engine: str | None = None) -> Model:
        """The model of this name, or the one that is served under it by `engine`. Raises UnknownModel."""
        if engine is not None and engine not in ENGINES:
            raise InvalidSetting(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")
        named = [m for m in self.models if m.name == name]
        served = [m for m in self.models if m.asked_for == name and m not in named]
        fitting = [m for m in named + served if engine in (None, m.engine)]
        if fitting:
            return fitting[0]
        if named:
            raise UnknownModel(f"{name!r} has no entry for {engine}; its engine is {named[0].engine}")
        known = ", ".join(m.name for m in self.models)
        raise UnknownModel(f"no model {name!r} in {self.path.name}; there are: {known}")

    def approve(self, model: Model, var: Path, revision: str | None = None) -> Model:
        """Mark a model as approved in the file, at `revision` if that is given; the new entry.

        Raises WrongFiles (local files differ), NotApproved (nothing pins the weights), InvalidRegistry.
        """
        if revision:
            model = msgspec.structs.replace(model, revision=revision)
        require_pinned(model)
        if model.local:
            verify(model, var)
        text = _set(_read(self.path), model.name, "approved", "true")
        if revision:
            text = _set(text, model.name, "revision", f'"{revision}"')
        approved = _entry(self.path, model.name, tomllib.loads(text)[model.name])
        _write(self.path, text)
        return approved


def require_approved(model: Model) -> None:
    """Raises NotApproved unless the model is approved and pinned."""
    if not model.approved:
        raise NotApproved(
            f"{model.name} is not approved (licence: {model.licence}); "
            f"after review: llm-server approve {model.name}"
        )
    require_pinned(model)


def require_pinned(model: Model) -> None:
    """Raises NotApproved unless exactly one version of the weights can be meant."""
    if not model.pinned:
        raise NotApproved(
            f"{model.name} is at {model.revision or 'no revision'}, which can move; "
            f"pin a commit: llm-server approve {model.name} --revision COMMIT"
        )


def verify(model: Model, var: Path) -> None:
    """Hold the files of a local model against the registry. Raises WrongFiles that names the file."""
    for name, expected in model.files.items():
        path = model.folder(var) / name
        if not path.is_file():
            raise WrongFiles(f"{path} is missing; make it with `{_preparation(model)}`")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise WrongFiles(
                f"{path} has the wrong digest {found}, not {expected}; "
                f"delete it and run `{_preparation(model)}`"
            )


def _preparation(model: Model) -> str:
    for_vllm = ".venv/models/bin/python -m models.prepare --for-vllm"
    return for_vllm if model.engine == "vllm" else "make models"


def _entry(path: Path, name: str, table: Any) -> Model:
    try:
        return msgspec.convert(table | {"name": name}, Model)
    except (msgspec.ValidationError, TypeError) as exc:
        raise InvalidRegistry(f"{path}: [{name}]: {exc}") from exc


def _set(text: str, name: str, field: str, value: str) -> str:
    """The registry's text with one field of one entry changed, everything else as people wrote it."""
    header = re.search(rf"^\[{re.escape(name)}\]\n", text, re.MULTILINE)
    if header is None:
        raise InvalidRegistry(f"[{name}] is not written as a table of its own; edit the registry by hand")
    end = text.find("\n[", header.end())
    body = text[header.end() : end if end >= 0 else len(text)]
    line = re.compile(rf"^{field} *=.*$", re.MULTILINE)
    setting = f"{field} = {value}"
    changed = line.sub(lambda _: setting, body) if line.search(body) else f"{setting}\n{body}"
    return text[: header.end()] + changed + text[header.end() + len(body) :]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as exc:
        raise InvalidRegistry(f"the registry {path} cannot be read ({exc.strerror})") from exc


def _write(path: Path, text: str) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).chmod(path.stat().st_mode)
        Path(name).replace(path)
    except OSError as exc:
        raise InvalidRegistry(f"the registry {path} cannot be written ({exc.strerror})") from exc
