"""The model registry: what is served is what somebody approved, byte for byte."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llm_server.cli import commands
from llm_server.errors import InvalidRegistry, NotApproved, UnknownModel, WrongFiles
from llm_server.registry import Registry, require_approved, verify
from llm_server.settings import Settings
from models.sources import targets

RELEASED = Settings().registry
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = b"weights"

ENTRIES = f"""\
# reviewed by people
[tiny]
description = "local"  # a comment
engine = "llama.cpp"
device = "cpu"
source = "tiny"
files = {{ "model.gguf" = "{hashlib.sha256(WEIGHTS).hexdigest()}" }}
licence = "MIT"
max_model_len = 64
max_num_seqs = 2
approved = false

[tiny-vllm]
served_name = "tiny"
description = "the same for vLLM"
engine = "vllm"
device = "gpu"
source = "org/tiny"
revision = "main"
licence = "MIT"
max_model_len = 64
max_num_seqs = 2
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry of two entries, not approved; the local one's file is in `tmp_path/var`."""
    (tmp_path / "var/models/tiny").mkdir(parents=True)
    (tmp_path / "var/models/tiny/model.gguf").write_bytes(WEIGHTS)
    (tmp_path / "models.toml").write_text(ENTRIES)
    return Registry.load(tmp_path / "models.toml")


def run(*arguments: str, registry: Path = RELEASED, **variables: str) -> Result:
    env = {"LLM_SERVER_REGISTRY": str(registry), "LLM_SERVER_VAR": str(registry.parent / "var")} | variables
    return CliRunner().invoke(commands, list(arguments), env=env)


def test_every_released_entry_can_mean_one_version_of_the_weights_only() -> None:
    models = Registry.load(RELEASED).models
    assert [model.name for model in models if not model.pinned] == []
    assert {model.licence for model in models if model.approved} == {"Apache-2.0"}


def test_the_registry_expects_the_very_files_that_preparation_makes() -> None:
    made = {target.folder: target.outputs for target in targets()}
    for model in Registry.load(RELEASED).models:
        for name, digest in model.files.items():
            assert made[model.source][name] == digest


def test_an_engine_finds_the_entry_that_serves_the_name(registry: Registry) -> None:
    assert registry.find("tiny").name == "tiny"
    assert registry.find("tiny", "vllm").name == "tiny-vllm"
    assert registry.find("tiny-vllm").asked_for == "tiny"


def test_an_unknown_model_is_refused_with_the_names_there_are(registry: Registry) -> None:
    with pytest.raises(UnknownModel, match=r"no model 'big' in models.toml; there are: tiny, tiny-vllm"):
        registry.find("big")
    with pytest.raises(UnknownModel, match=r"'tiny-vllm' has no entry for llama.cpp; its engine is vllm"):
        registry.find("tiny-vllm", "llama.cpp")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ('[tiny]\nengine = "llama.cpp"', r"\[tiny\]: Object missing required field"),
        (ENTRIES.replace("licence", "license"), r"\[tiny\]: Object contains unknown field `license`"),
        (ENTRIES.replace("= 64", '= "64"'), r"\[tiny\]: Expected `int`, got `str` - at `\$.max_model_len`"),
        ("tiny = 3", r"\[tiny\]"),
        ("[tiny", "is not TOML"),
    ],
)
def test_a_broken_registry_names_file_entry_and_field(tmp_path: Path, broken: str, complaint: str) -> None:
    (tmp_path / "models.toml").write_text(broken)
    with pytest.raises(InvalidRegistry, match=f"models.toml.*{complaint}"):
        Registry.load(tmp_path / "models.toml")


def test_a_missing_registry_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRegistry, match=r"nowhere\.toml cannot be read \(No such file or directory\)"):
        Registry.load(tmp_path / "nowhere.toml")


def test_a_model_that_nobody_approved_is_not_served(registry: Registry) -> None:
    with pytest.raises(NotApproved, match=r"tiny is not approved .*llm-server approve tiny"):
        require_approved(registry.find("tiny"))


def test_an_altered_or_missing_file_is_found(registry: Registry, tmp_path: Path) -> None:
    path, model = tmp_path / "var/models/tiny/model.gguf", registry.find("tiny")
    verify(model, tmp_path / "var")
    path.write_bytes(b"Weights")
    with pytest.raises(WrongFiles, match=r"model\.gguf has the wrong digest .* delete it and run"):
        verify(model, tmp_path / "var")
    path.unlink()
    with pytest.raises(WrongFiles, match=r"model\.gguf is missing; make it with `make models`"):
        verify(model, tmp_path / "var")


def test_approving_changes_one_line_and_no_comment(registry: Registry, tmp_path: Path) -> None:
    assert registry.approve(registry.find("tiny"), tmp_path / "var").approved
    assert registry.path.read_text() == ENTRIES.replace("approved = false", "approved = true")
    require_approved(Registry.load(registry.path).find("tiny"))


def test_altered_files_are_not_approved(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "var/models/tiny/model.gguf").write_bytes(b"other")
    with pytest.raises(WrongFiles):
        registry.approve(registry.find("tiny"), tmp_path / "var")
    assert registry.path.read_text() == ENTRIES


def test_a_branch_cannot_be_approved_a_commit_can(registry: Registry, tmp_path: Path) -> None:
    hub = registry.find("tiny-vllm")
    with pytest.raises(NotApproved, match="tiny-vllm is at main, which can move; pin a commit"):
        registry.approve(hub, tmp_path / "var")
    assert registry.path.read_text() == ENTRIES
    registry.approve(hub, tmp_path / "var", COMMIT)
    approved = Registry.load(registry.path).find("tiny-vllm")
    assert (approved.approved, approved.revision) == (True, COMMIT)
    assert not Registry.load(registry.path).find("tiny").approved


def test_a_registry_that_vanished_is_named_when_it_is_approved_in(registry: Registry, tmp_path: Path) -> None:
    registry.path.unlink()
    with pytest.raises(InvalidRegistry, match=r"models\.toml cannot be read"):
        registry.approve(registry.find("tiny"), tmp_path / "var")


def test_the_command_approves_and_says_what_to_commit(registry: Registry) -> None:
    result = run("approve", "tiny", registry=registry.path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "tiny: approved at 1 local files; review and commit" in result.stdout
    refused = run("approve", "tiny-vllm", "--revision", "main", registry=registry.path)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("llm-server: tiny-vllm is at main, which can move")


def test_the_command_lists_models_for_people_and_for_scripts() -> None:
    assert "qwen3-30b-a3b-fp8" in run("models").stdout
    listed = json.loads(run("models", "--json").stdout)
    assert {"name", "engine", "licence", "revision", "approved", "gpu_memory_gib"} <= listed[0].keys()


def test_the_command_verifies(registry: Registry, tmp_path: Path) -> None:
    assert run("verify", "tiny", registry=registry.path).stdout == "tiny: 1 files unaltered\n"
    (tmp_path / "var/models/tiny/model.gguf").write_bytes(b"other")
    result = run("verify", "tiny", "--json", registry=registry.path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "wrong digest" in result.stderr
    assert json.loads(run("verify", "qwen3-8b", "--json").stdout)["verified"] == "revision"


def test_unknown_names_exit_with_2_and_one_line() -> None:
    result = run("plan", "big")
    assert result.exit_code == 2
    assert result.stderr.startswith("llm-server: no model 'big'")
    assert result.stderr.count("\n") == 1
