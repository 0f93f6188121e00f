"""Templates: loaded, released once and for all, laid out."""

import hashlib
import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from business_api.assistants import Assistant
from business_api.exchange import Message, Question
from business_api.prompting import Prompting, Template, UnknownTemplate
from business_api.settings import ROOT
from tests.fakes import passage


def written(folder: Path, toml: str) -> Template:
    (folder / "odd").mkdir()
    (folder / "odd/v1.toml").write_text(toml)
    return Template.load(folder, "odd/v1")


@pytest.mark.parametrize(
    ("order", "shown"),
    [("best_first", "1 2 3 4 5"), ("best_last", "5 4 3 2 1"), ("edges", "1 3 5 4 2")],
)
def test_passages_keep_their_numbers_in_whatever_order_they_are_shown(
    tmp_path: Path, order: str, shown: str
) -> None:
    body = "{% for passage in passages %}[{{ passage.marker }}] {{ passage.text }} {% endfor %}"
    template = written(tmp_path, f"order = '{order}'\n[[messages]]\nrole = 'user'\ncontent = '''{body}'''")
    found = [passage(f"fact {n}", f"{n}.md") for n in range(1, 6)]
    odd = Assistant(name="odd", collection="kb", template="odd/v1")
    asked = Question(id="q", tenant="t", assistant="odd", messages=(Message("user", "?"),))
    prompt = Prompting({"odd/v1": template}, 2048, 3.0).fill(asked, odd, found)
    assert prompt.messages[0].content == " ".join(f"[{n}] fact {n}" for n in shown.split())
    assert list(prompt.passages) == found


def test_an_order_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"order must be one of best_first, best_last, edges"):
        written(tmp_path, "order = 'worst_first'\nmessages = []")


def test_a_template_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(UnknownTemplate, match="answer_with_markers/v1"):
        Template.load(ROOT / "prompts", "answer_with_markers/v99")


def test_a_template_with_an_unknown_name_in_it_does_not_render(tmp_path: Path) -> None:
    template = written(tmp_path, '[[messages]]\nrole = "user"\ncontent = "{{ nobody }}"')
    with pytest.raises(UndefinedError, match="nobody"):
        template.filled(question="q")


def test_a_broken_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"odd/v1\.toml"):
        written(tmp_path, '[[messages]]\nrole = "user"\ncontent = "{% if %}"')


def test_released_templates_never_change() -> None:
    released = tomllib.loads((ROOT / "prompts/released.toml").read_text())
    found = {
        str(path.relative_to(ROOT / "prompts").with_suffix("")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "prompts").glob("*/*.toml")
    }
    assert found == released
