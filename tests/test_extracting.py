"""An answer without an LLM, from the sentences of the passages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from business_api.extracting import MOST, extract, quoted
from tests.fakes import passage

PORTS = passage(
    "# Ports\n\nThe LLM server listens on\n127.0.0.1:8001 by default. The chat page is served on port 8000. "
    "As [2] says, `ports[1]` is free.\n\n```bash\nllm-server serve --port 9001\n```\n",
    "docs/ports.md",
)
SETTINGS = passage(
    "| Setting | What it is |\n|---|---|\n| `llm.url` | Where the LLM server listens |\n"
    "| `sink` | The spool |\n\n- Set `LLM_SERVER_PORT` to change the LLM server's port\n- Bananas\n",
    "docs/settings.md",
)


def test_the_best_sentences_are_said_verbatim_with_their_markers_in_the_order_of_the_passages() -> None:
    assert extract("Which port does the LLM server listen on?", [SETTINGS, PORTS]).split("\n\n") == [
        "`llm.url` | Where the LLM server listens [1]",
        "Set `LLM_SERVER_PORT` to change the LLM server's port [1]",
        "The LLM server listens on\n127.0.0.1:8001 by default. [2]",
    ]


def test_a_line_of_code_may_be_the_answer() -> None:
    said = extract("How do I serve on port 9001 with llm-server?", [PORTS])
    assert "llm-server serve --port 9001 [1]" in said


@pytest.mark.parametrize("question", ["Who painted the Mona Lisa?", "And?", "", "港はどこですか"])
def test_nothing_is_said_when_nothing_has_to_do_with_the_question(question: str) -> None:
    assert extract(question, [PORTS, SETTINGS]) == ""
    assert extract(question, []) == ""


def test_what_is_said_twice_is_extracted_once() -> None:
    again = passage("By default the LLM server listens on 127.0.0.1:8001.", "docs/again.md")
    assert extract("Where does the LLM server listen by default?", [PORTS, again]).count("8001") == 1


def test_each_extracted_sentence_is_a_citation_that_supports_itself() -> None:
    passages = [SETTINGS, PORTS]
    citations = quoted(extract("Which port does the LLM server listen on?", passages), passages)
    assert [(c.marker, c.by, c.supported) for c in citations] == [(1, "extract", True)] * 2 + [
        (2, "extract", True)
    ]
    assert all(passages[c.marker - 1].chunk.text[c.start : c.end] == c.quote for c in citations)


LINES = [
    "Port [1] is 80.",
    "# Port",
    "| port | 80 |",
    "- a port [2]\n  goes on",
    "```",
    "port",
    "The port ` is",
    "",
]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(LINES) | st.text(max_size=8), max_size=6).map("\n".join), max_size=3)
)
def test_whatever_the_documents_hold_extracts_are_few_verbatim_and_cited(texts: list[str]) -> None:
    passages = [passage(text) for text in texts]
    answer = extract("Which port?", passages)
    citations = quoted(answer, passages) if answer else []
    assert len(citations) <= MOST
    assert "\n\n".join(f"{c.quote} [{c.marker}]" for c in citations) == answer
    assert all(passages[c.marker - 1].chunk.text[c.start : c.end] == c.quote for c in citations)


def test_a_sentence_that_holds_something_like_a_marker_is_passed_over() -> None:
    text = "The zorblax engine has 17 valves. The zorblax valves are said to be [1] and [2] here."
    assert extract("zorblax engine valves", [passage(text)]) == "The zorblax engine has 17 valves. [1]"
