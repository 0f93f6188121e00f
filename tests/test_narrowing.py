"""What an LLM says a question is restricted to, and what of that is believed."""

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from business_api.assistants import Assistant
from business_api.exchange import Degradation
from business_api.narrowing import Facets, combined, looking_in, offer, read, response_format
from business_api.passages import About, Narrowing
from business_api.tidying import Nonsense
from business_api.vector_store import Point
from tests.desk import KNOWN, PORT, Desk
from tests.places import chunk
from tests.samples.memory_store import MemoryStore

MARCH, APRIL, MAY = (datetime.date(2024, month, 1) for month in (3, 4, 5))
ALL = ("documents", "language", "tags", "date")


async def test_what_the_question_names_narrows_the_search() -> None:
    said = {
        "documents": ["docs/ports.md"],
        "tags": [],
        "language": "de",
        "after": "2024-03-01",
        "before": None,
    }
    desk = Desk(narrow=json.dumps(said))
    rewritten = await desk.rewrite("In ports.md, since March, in German?", narrow_by=ALL)
    assert rewritten.query.narrower == Narrowing(documents=("docs/ports.md",), language="de", after=MARCH)
    assert rewritten.degraded == ()
    assert set(rewritten.timings_ms) == {"narrow"}
    assert "Today is 2024-03-31" in desk.heard
    assert desk.looked == ["t"]


async def test_the_llm_chooses_among_what_the_question_names() -> None:
    desk = Desk(narrow="{}")
    await desk.rewrite("Which ports?", narrow_by=("documents", "tags", "language", "date"))
    (heard,) = desk.llm.requests
    asked = heard.body["response_format"]
    assert asked["type"] == "json_schema"
    fields = asked["json_schema"]["schema"]["properties"]
    assert fields["documents"]["items"]["enum"] == ["docs/ports.md"]
    assert fields["tags"]["items"]["enum"] == ["ports"]
    assert fields["language"]["anyOf"][0]["enum"] == ["de", "en"]
    assert set(fields) == {"documents", "tags", "language", "after", "before"}
    assert "docs/keys.md" not in desk.heard


async def test_a_question_that_names_nothing_costs_no_call() -> None:
    desk = Desk(known=Facets(documents=("docs/ports.md",), tags=("ports",)))
    rewritten = await desk.rewrite("Who are you?", narrow_by=("documents", "tags"))
    assert rewritten.query.narrowing == Narrowing()
    assert rewritten.degraded == ()
    assert desk.llm.requests == []


@pytest.mark.parametrize("said", ["[1, 2]", '"ports"', "null", '{"tags": ["' + "ports and " * 90 + '"]}'])
async def test_json_that_is_no_object_or_cut_off_narrows_nothing(said: str) -> None:
    asked = Narrowing(language="en")
    rewritten = await Desk(narrow=said).rewrite(PORT, narrow_by=ALL, narrowing=asked)
    assert rewritten.query.narrowing == asked
    assert rewritten.degraded == (Degradation.NARROWING_FAILED,)


@pytest.mark.parametrize(
    "said", ["", "I think that none is.", "{", '{"tags": [}', "{'tags': []}", "}{", "[" * 5000]
)
def test_what_is_not_json_is_nonsense(said: str) -> None:
    with pytest.raises(Nonsense):
        read(said, KNOWN)


@pytest.mark.parametrize(
    "said",
    [
        {"documents": ["docs/secret.md", 7, None], "tags": ["PORTS"], "language": "fr"},
        {"documents": "docs/ports.md", "tags": {"ports": 1}, "language": ["de"], "after": 20240301},
        {"after": "yesterday", "before": "2024-13-45"},
        {"after": "2024-05-01", "before": "2024-03-01"},
        {"tenant": "other", "collection": "all", "should": [{"key": "tenant"}]},
    ],
)
def test_unknown_fields_and_values_are_dropped(said: dict[str, object]) -> None:
    assert read(json.dumps(said), KNOWN) == Narrowing()


def test_what_was_not_offered_is_dropped_even_if_it_exists() -> None:
    said = json.dumps(
        {"tags": ["ports"], "language": "de", "after": "2024-03-01", "documents": ["docs/keys.md"]}
    )
    assert read(said, Facets(documents=("docs/ports.md",))) == Narrowing()


def test_json_in_a_code_fence_is_read() -> None:
    assert read('```json\n{"tags": ["ports"]}\n```', KNOWN) == Narrowing(tags=("ports",))


def test_at_most_thirty_of_each_are_offered_those_first_that_the_text_names_best() -> None:
    many = tuple(f"docs/ports-{n}.md" for n in range(99))
    found = offer(Facets(documents=(*many, "docs/ports-of-the-gateway.md")), "the ports of the gateway")
    assert found is not None
    assert len(found.documents) == 30
    assert found.documents[0] == "docs/ports-of-the-gateway.md"


def test_a_schema_asks_only_for_what_is_offered_and_leaves_every_field_open() -> None:
    schema = response_format(Facets(languages=("de",)))["json_schema"]["schema"]
    assert schema["required"] == ["language"]
    assert {"type": "null"} in schema["properties"]["language"]["anyOf"]
    assert schema["additionalProperties"] is False


CALLER = Narrowing(documents=("a", "b"), language="en", tags=("x", "y"), after=MARCH, before=MAY)


@pytest.mark.parametrize(
    ("found", "both"),
    [
        (Narrowing(), CALLER),
        (Narrowing(documents=("b", "c")), Narrowing(("b",), "en", ("x", "y"), MARCH, MAY)),
        (Narrowing(documents=("c",)), CALLER),
        (Narrowing(tags=("y",)), Narrowing(("a", "b"), "en", ("y",), MARCH, MAY)),
        (Narrowing(tags=("z",), language="de"), CALLER),
        (Narrowing(after=APRIL), Narrowing(("a", "b"), "en", ("x", "y"), APRIL, MAY)),
        (Narrowing(after=datetime.date(2020, 1, 1), before=datetime.date(2030, 1, 1)), CALLER),
        (Narrowing(after=datetime.date(2030, 1, 1)), CALLER),
    ],
)
def test_what_the_caller_asked_for_stays_binding(found: Narrowing, both: Narrowing) -> None:
    assert combined(CALLER, found) == both
    assert combined(Narrowing(), found) == found


names = st.lists(st.sampled_from("abc"), unique=True).map(tuple)
days = st.none() | st.sampled_from([MARCH, APRIL, MAY])
languages = st.none() | st.sampled_from(["de", "en"])
narrowings = st.builds(Narrowing, documents=names, language=languages, tags=names, after=days, before=days)


def lets_through(narrowing: Narrowing, document: str, about: About) -> bool:
    n, day = narrowing, about.date or datetime.date.min
    return (
        (not n.documents or document in n.documents)
        and n.language in (None, about.language)
        and (not n.tags or bool(set(n.tags) & set(about.tags)))
        and (not n.after or day >= n.after)
        and (not n.before or datetime.date.min < day <= n.before)
    )


@given(narrowings, narrowings, st.sampled_from("abc"), st.builds(About, languages, days, names))
def test_both_together_never_let_through_what_the_caller_ruled_out(
    asked: Narrowing, found: Narrowing, document: str, about: About
) -> None:
    if lets_through(combined(asked, found), document, about):
        assert lets_through(asked, document, about)


async def test_only_what_the_assistant_is_narrowed_by_is_looked_up() -> None:
    about = About("de", MARCH, ("ports", "keys"))
    store = MemoryStore(published={"1": Point(chunk("docs/ports.md", "text"), (), "1", about)})
    look_up = looking_in({"kb": store})
    tagged = Assistant(name="t", collection="kb", narrow_by=("tags",))
    every = Assistant(name="t", collection="kb", narrow_by=("documents", "language", "tags", "date"))
    assert await look_up("t", tagged) == Facets(tags=("ports", "keys"))
    assert await look_up("t", every) == Facets(("docs/ports.md",), ("de",), ("ports", "keys"), dated=True)
