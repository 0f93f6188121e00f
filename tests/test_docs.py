"""The documentation says what the code does: commands, settings, fields, codes, paths, links."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
from pydantic import BaseModel

from business_api import cli as business_cli
from business_api import errors
from business_api.assistants import Assistant
from business_api.chat_request import PASSED_ON, ChatRequest
from business_api.exchange import Degradation, Outcome
from business_api.settings import ROOT, Settings
from llm_server import cli as llm_cli
from llm_server.settings import PREFIX
from llm_server.settings import Settings as LlmSettings

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
ALL = [README, *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
UNTRACKED = {"var", "dist", "node_modules", "__pycache__"}
PROGRAMS = {"business-api": business_cli.cli, "llm-server": llm_cli.commands}
OF_THE_MACHINE = {
    "BUSINESS_API_EMBEDDING__THREADS": "CPU cores, at most 4",
    "BUSINESS_API_RERANK__THREADS": "CPU cores, at most 4",
    "LLM_SERVER_THREADS": "CPU cores",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", ALL, ids=name_of)


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [content for found, content in BLOCK.findall(text(page)) if found == language]


def prose(page: Path) -> str:
    return BLOCK.sub("", text(page))


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def shell_lines(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]


def table(page: Path, first: str) -> dict[str, list[str]]:
    """All rows of the tables whose first column is called `first`, by the code in that column."""
    rows: dict[str, list[str]] = {}
    inside = False
    for line in text(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not line.startswith("|---"):
            rows |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1:])
    return rows


def headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_begins_with_its_title_and_one_sentence_on_what_it_tells(page: Path) -> None:
    title, sentence, *_ = text(page).split("\n\n")
    assert re.fullmatch(r"# [A-Z].+", title)
    assert re.fullmatch(r"This page tells you [^.]+\.", " ".join(sentence.split()))


@every_page
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for link in (link for link in LINK.findall(prose(page)) if "://" not in link):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_the_readme_leads_to_every_page() -> None:
    linked = {(ROOT / link).resolve() for link in LINK.findall(prose(README))}
    assert set(PAGES) <= linked


@every_page
def test_no_page_names_an_unknown_make_target(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for code in (*inline_code(page), *shell_lines(page)) for name in TARGET.findall(code)}
    assert named <= known


def calls(code: str) -> Iterator[tuple[str, list[str]]]:
    """The calls of our programs in a line of code: program and arguments."""
    if not any(program in code for program in PROGRAMS):
        return
    words = shlex.split(code, comments=True)
    places = [place for place, word in enumerate(words) if word.rpartition("/")[2] in PROGRAMS]
    if places and len(words) > places[-1] + 1:
        yield words[places[-1]].rpartition("/")[2], words[places[-1] + 1 :]


def command_of(program: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that is called, and what is left of the arguments. KeyError: there is none such."""
    command: Any = typer.main.get_command(PROGRAMS[program])
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        command = command.commands[arguments[0]]
        arguments = arguments[1:]
    return command, arguments


@every_page
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    lines = shell_lines(page)
    for code in (*inline_code(page), *lines):
        for program, arguments in calls(code):
            command, rest = command_of(program, arguments)
            known = {"--help"}.union(*(parameter.opts for parameter in command.params))
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, code
            if code in lines:
                command.make_context(program, list(rest))


@every_page
def test_code_blocks_parse(page: Path) -> None:
    for language, parse in (("python", ast.parse), ("json", json.loads), ("toml", tomllib.loads)):
        for block in blocks(page, language):
            parse(block)


def shown(value: object) -> str:
    """A default as the table of settings shows it."""
    if value is None:
        return "none"
    if isinstance(value, Path):
        return f"`{value.relative_to(ROOT) if value.is_absolute() else value}`"
    if isinstance(value, tuple | bool):
        return f"`{json.dumps(value)}`"
    return f"`{value}`"


def business_settings(group: BaseModel, prefix: str) -> Iterator[tuple[str, object]]:
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from business_settings(value, f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper(), value


def test_the_table_of_settings_is_complete_and_right() -> None:
    llm = msgspec.structs.asdict(LlmSettings())
    found = dict(business_settings(Settings(), "BUSINESS_API_"))
    found |= {PREFIX + name.upper(): value for name, value in llm.items()}
    expected = {name: shown(value) for name, value in found.items()} | OF_THE_MACHINE
    rows = table(DOCS / "configuration.md", "Variable")
    documented = {name: cells[0] for name, cells in rows.items() if len(cells) == 2}
    assert documented == expected


@every_page
def test_variables_that_a_page_names_are_settings(page: Path) -> None:
    known = {name for name, _ in business_settings(Settings(), "BUSINESS_API_")} | {"BUSINESS_API_FILE"}
    known |= {PREFIX + name.upper() for name in LlmSettings.__struct_fields__}
    known |= {
        f"BUSINESS_API_LLM_FALLBACKS__HOSTED__{name.upper()}" for name in type(Settings().llm).model_fields
    }
    named = set(re.findall(r"\b(?:BUSINESS_API|LLM_SERVER)_[A-Z_]*[A-Z]", text(page)))
    assert named <= known


def test_the_fields_of_an_assistant_are_complete_with_their_defaults() -> None:
    rows = table(DOCS / "assistants-and-prompts.md", "Field")
    fields = {
        field.name: field.default for field in msgspec.structs.fields(Assistant) if field.name != "name"
    }
    empty = dict.fromkeys(("description", "suggestions", "stop", "narrow_by", "fallbacks"), "empty")
    assert {name: cells[0].strip("`") for name, cells in rows.items()} == {
        name: empty.get(name, shown(default).strip("`")) for name, default in fields.items()
    }


def kinds_of_error(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from kinds_of_error(below)


def test_every_error_code_is_explained_with_its_status() -> None:
    documented = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text(DOCS / "errors.md"), re.MULTILINE))
    assert documented == {(str(kind.status), kind.code) for kind in kinds_of_error(errors.ServiceError)}


def test_outcomes_and_degradations_are_explained() -> None:
    assert set(table(DOCS / "errors.md", "Outcome")) == set(Outcome)
    assert set(table(DOCS / "errors.md", "Name")) == set(Degradation)


def test_the_openai_page_names_every_field_that_is_taken() -> None:
    page = DOCS / "openai-compatibility.md"
    named = set(re.findall(r"\w+", " ".join(inline_code(page))))
    assert set(ChatRequest.__struct_fields__) <= named
    passed_on = text(page).partition("## Fields that are passed on\n\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", passed_on)) == set(PASSED_ON)


def tree() -> list[str]:
    """Paths of the README's tree, from the root."""
    found: list[str] = []
    folder = ""
    for line in BLOCK.findall(text(README).partition("## The tree\n")[2])[0][1].splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        found.append(folder + name if line.startswith(" ") else name)
    return found


def test_the_readmes_tree_names_only_what_exists_and_every_folder() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    folders = [path for path in ROOT.glob("[a-z]*/") if path.name not in UNTRACKED and path.suffix == ""]
    assert {f"{path.name}/" for path in folders if any(path.iterdir())} <= set(tree())
