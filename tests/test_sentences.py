"""Where sentences stand, and which words are compared."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from business_api.sentences import sentences, weighted, words

PAGE = """# Ports

The LLM server listens on
port 8001, e.g. here. It has others!

- one is
  long. Two
1. step one

| name | meaning |
|---|---|
| `port` | where it listens. Always. |

```bash
make run  # all. Of it
```
> said by others
"""


def test_a_page_is_cut_into_sentences_items_rows_lines_of_code_and_headings() -> None:
    assert [(one.kind, PAGE[one.start : one.end]) for one in sentences(PAGE)] == [
        ("heading", "# Ports"),
        ("prose", "The LLM server listens on\nport 8001, e.g. here."),
        ("prose", "It has others!"),
        ("item", "one is\n  long."),
        ("item", "Two"),
        ("item", "step one"),
        ("heading", "| name | meaning |"),
        ("row", "`port` | where it listens. Always."),
        ("code", "make run  # all. Of it"),
        ("item", "said by others"),
    ]


def test_no_sentence_reaches_over_a_seam() -> None:
    text = "It listens on port 8001."
    assert [text[one.start : one.end] for one in sentences(text, (10,))] == ["It listens", "on port 8001."]


def test_a_paragraph_without_full_stops_is_cut_at_its_lines() -> None:
    text = "\n".join(["word " * 30] * 12) + ". More"
    found = sentences(text)
    assert len(found) > 1
    assert all(text[one.start - 1] in "\n " for one in found[1:])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("listens", "listening"),
        ("10th", "ten"),
        ("8,001", "8001"),
        ("Server's", "servers"),
        ("stopped", "stop"),
    ],
)
def test_forms_of_a_word_are_compared_as_one(one: str, other: str) -> None:
    assert words(one)[0] == words(other)[0]


def test_compounds_are_there_whole_and_in_parts_and_unspaced_scripts_in_pairs() -> None:
    assert set(words("127.0.0.1")) == {"127.0.0.1", "127", "0", "1"}
    assert {"文で", "です"} <= set(words("文です"))


def test_numbers_identifiers_and_names_weigh_double_and_stop_words_nothing() -> None:
    assert weighted("The port is 8001 on Linux") == {"port": 1.0, "8001": 2.0, "linux": 2.0}


@settings(deadline=None)
@given(st.text(max_size=200))
def test_sentences_stand_in_order_and_hold_every_word_but_marks(text: str) -> None:
    found = sentences(text)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert all(text[one.start : one.end].strip() == text[one.start : one.end] != "" for one in found)
