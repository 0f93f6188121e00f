"""The images and the compose file: hardened, pinned, and speaking of settings that exist."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from business_api.serving import FAREWELL_SECONDS, INSIST_SECONDS
from business_api.settings import Settings
from deploy.measure_image import left_out, locked
from llm_server.settings import Settings as LlmSettings
from tests.fakes import FakeLlm, serving
from tests.programs import serving_program

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE_TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LONG_RUNNING = [name for name, service in SERVICES.items() if service["restart"] != "no"]
# In a process started with this, what the image leaves out cannot be imported.
BLOCK = """
import importlib.metadata as metadata
import re
import sys

ALLOWED = {allowed!r}
OWNERS = metadata.packages_distributions()


class LeftOut:
    def find_spec(self, name, path=None, target=None):
        owners = {{re.sub("[-_.]+", "-", one).lower() for one in OWNERS.get(name.partition(".")[0], [])}}
        if owners and not owners & ALLOWED:
            raise ModuleNotFoundError(f"{{name}} is not in the image", name=name)


sys.meta_path.insert(0, LeftOut())
print("the rest is left out", file=sys.stderr, flush=True)
"""


def instructions(path: Path) -> list[list[str]]:
    """The words of each instruction, in order."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip()]


def stages(path: Path) -> dict[str, list[list[str]]]:
    """Instructions by stage."""
    found: dict[str, list[list[str]]] = {}
    for words in instructions(path):
        if words[0] == "FROM":
            found[words[3]] = []
        found[list(found)[-1]].append(words)
    return found


def images(path: Path) -> list[str]:
    """The stages that compose builds from this file."""
    builds = [service["build"] for service in SERVICES.values() if "build" in service]
    return sorted({build["target"] for build in builds if build["dockerfile"] == f"deploy/{path.name}"})


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def setting_exists(variable: str) -> bool:
    if variable.startswith("LLM_SERVER_"):
        return variable.removeprefix("LLM_SERVER_").lower() in LlmSettings.__struct_fields__
    group: Any = Settings
    for name in variable.removeprefix("BUSINESS_API_").lower().split("__"):
        field = getattr(group, "model_fields", {}).get(name)
        if field is None:
            return False
        group = field.annotation
    return True


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_rights_no_writable_system_and_no_unlimited_resources(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "user"} & set(service)
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["pids"]
    assert service["restart"] in ("unless-stopped", "no")
    assert service["logging"]["options"]["max-size"]


def test_only_the_business_api_is_published_and_on_loopback_unless_told_otherwise() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "business-api": ["${TANDEM_ADDRESS:-127.0.0.1}:${TANDEM_PORT:-8000}:8000"]
    }
    assert "TANDEM_ADDRESS=127.0.0.1\n" in (DEPLOY / ".env.example").read_text()


def test_the_llm_tier_and_the_store_stand_on_networks_without_a_way_out() -> None:
    assert {name for name, network in COMPOSE["networks"].items() if network.get("internal")} == {
        "store",
        "llm",
    }
    reached = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert reached.pop("business-api") == {"front", "store", "llm"}
    assert reached.pop("weights") == {"downloads"}
    assert all(networks <= {"store", "llm"} for networks in reached.values())
    assert all(len(networks) == 1 for networks in reached.values())


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_starts_the_whole_stack_with_one_llm_server(profile: str) -> None:
    started = {name: service for name, service in SERVICES.items() if profile in service["profiles"]}
    assert set(started) == {"business-api", "qdrant", f"llm-server-{profile}"}
    llm = started[f"llm-server-{profile}"]
    assert llm["networks"]["llm"]["aliases"] == ["llm-server"]
    assert (
        started["business-api"]["environment"]["BUSINESS_API_LLM__URL"]
        == f"http://llm-server:{LlmSettings().port}/v1"
    )


def test_every_caller_of_the_published_service_needs_a_key() -> None:
    environment = SERVICES["business-api"]["environment"]
    assert Settings(host=environment["BUSINESS_API_HOST"]).keys_required
    assert environment["BUSINESS_API_GUARD__REQUIRE_KEYS"] == "always"


def test_no_image_is_named_by_a_tag_that_moves() -> None:
    named = [service["image"] for service in SERVICES.values()]
    for path in DOCKERFILES:
        named += [words[1] for words in instructions(path) if words[0] == "FROM" and "/" in words[1]]
        named += [words[1] for words in instructions(path) if words[0] == "FROM" and ":" in words[1]]
    for image in named:
        assert re.search(r":v?\d+\.\d+[^:]*$", image), image
    assert all(f":{VERSION}" in image for image in named if image.startswith("tandem/"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=[path.stem for path in DOCKERFILES])
def test_no_image_runs_as_root_and_each_ends_with_its_command(path: Path) -> None:
    assert images(path)
    for name in images(path):
        last = {words[0]: words for words in stages(path)[name]}
        assert last["USER"] == ["USER", "10001:10001"]
        assert "CMD" in last
        assert "HEALTHCHECK" in last or name == "ingest"


@pytest.mark.parametrize("path", DOCKERFILES, ids=[path.stem for path in DOCKERFILES])
def test_every_file_that_is_copied_exists_and_reaches_the_builder(path: Path) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    for words in instructions(path):
        if words[0] == "COPY" and not words[1].startswith("--from"):
            for source in words[1:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in sent, f"{source} is ignored"


def test_every_variable_of_the_services_names_a_setting() -> None:
    texts = [COMPOSE_TEXT, *(path.read_text() for path in DOCKERFILES)]
    named = {name for text in texts for name in re.findall(r"\b(?:BUSINESS_API|LLM_SERVER)_[A-Z_]+\b", text)}
    assert len(named) > 10
    assert [name for name in named if not setting_exists(name)] == []


def test_the_example_explains_every_variable_that_compose_reads() -> None:
    read = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_TEXT)) | {"COMPOSE_PROFILES"}
    example = (DEPLOY / ".env.example").read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)) == read


def test_a_stopped_container_is_given_longer_than_its_answers_may_take() -> None:
    longest = FAREWELL_SECONDS + Settings().stop_deadline + INSIST_SECONDS
    assert seconds(SERVICES["business-api"]["stop_grace_period"]) > longest
    for name in ("llm-server-cpu", "llm-server-gpu"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > LlmSettings().drain_seconds
    assert all("stop_grace_period" in SERVICES[name] for name in LONG_RUNNING)


def test_qdrant_is_of_the_release_that_its_client_is_made_for() -> None:
    release = re.search(r":v(\d+\.\d+)\.", SERVICES["qdrant"]["image"])
    assert release
    assert locked("business")["qdrant-client"].startswith(f"{release[1]}.")


def test_the_serving_lock_is_a_part_of_the_business_lock_and_holds_no_torch() -> None:
    serve, business = locked("serve"), locked("business")
    assert serve.items() <= business.items()
    assert not {"torch", "markitdown", "sentence-transformers"} & set(serve)
    assert left_out() <= set(serve)


def test_both_images_make_the_models_in_the_same_way() -> None:
    ours, llms = (stages(path)["weights"] for path in DOCKERFILES)
    assert ours == llms


def test_serving_loads_nothing_that_its_image_leaves_out(tmp_path: Path) -> None:
    allowed = set(locked("serve")) - left_out() | {"tandem"}
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(allowed=allowed))
    llm = FakeLlm("Forty-two.")
    with (
        serving(llm) as url,
        serving_program(tmp_path / "var", f"{url}/v1", PYTHONPATH=str(tmp_path)) as service,
    ):
        assert "the rest is left out" in service.log.read_text()
        status, answered, _ = service.chat("What is it?", assistant="plain")
        assert (status, answered["answer"]) == (200, "Forty-two.")
        status, answered, _ = service.chat("What is it?")  # embeds and searches; nothing is stored
        assert (status, answered["tandem"]["outcome"]) == (200, "abstained")


def test_the_health_check_asks_the_service_itself() -> None:
    for path in DOCKERFILES:
        for words in instructions(path):
            if words[0] == "HEALTHCHECK":
                checked = shlex.split(" ".join(words[words.index("CMD") + 1 :]).strip("[]"))[-1]
                compile(checked, path.name, "exec")
                assert ("/healthz" in checked) == (path.stem == "business_api")
