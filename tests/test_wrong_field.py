"""What is said of a wrong value: which field, and what it may be."""

from pathlib import Path
from typing import Literal

import aiohttp
import msgspec
import pytest

from business_api.assistants import Assistants
from business_api.wrong_field import wrong_field
from tests.stack import running_stack


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    colour: Literal["red", "blue"] | None = None
    size: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inner: Inner | None = None
    many: list[Inner] = []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", ("missing field: name", "name")),
        (b'{"name": "a", "nmae": 1}', ("unsupported field: nmae", "nmae")),
        (b'{"name": "a", "inner": {"hue": 1}}', ("unsupported field: inner.hue", "inner.hue")),
        (b'{"name": 1}', ("Expected `str`, got `int` - at `.name`", "name")),
        (
            b'{"name": "a", "inner": {"colour": "z - at `$.name` x"}}',
            (
                "Invalid enum value 'z - at `$.name` x' - at `.inner.colour`; it may be blue, red",
                "inner.colour",
            ),
        ),
        (b"[]", ("Expected `object`, got `array`", None)),
        (
            b'{"name": "a", "inner": {"colour": "green"}}',
            ("Invalid enum value 'green' - at `.inner.colour`; it may be blue, red", "inner.colour"),
        ),
        (
            b'{"name": "a", "many": [{"colour": "green"}]}',
            ("Invalid enum value 'green' - at `.many[0].colour`", "many[0].colour"),
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_choices(body: bytes, expected: tuple[str, str | None]) -> None:
    with pytest.raises(msgspec.ValidationError) as told:
        msgspec.json.decode(body, type=Outer)
    assert wrong_field(str(told.value), Outer) == expected


def test_an_assistant_with_a_choice_that_there_is_not_is_told_which_there_are(tmp_path: Path) -> None:
    path = tmp_path / "assistants.toml"
    path.write_text('[tandem]\nabstain = "sometimes"\n')
    with pytest.raises(ValueError, match=r"\[tandem\]: .*`.abstain`; it may be flag, never, refuse"):
        Assistants.load(path)


async def test_a_caller_is_told_the_choices_too(tmp_path: Path) -> None:
    body = {"message": "Which port?", "tandem": {"priority": "urgent"}}
    with running_stack(tmp_path) as stack:
        async with aiohttp.ClientSession() as session, session.post(f"{stack.url}/chat", json=body) as reply:
            status, told = reply.status, (await reply.json())["error"]
    assert (status, told["param"]) == (400, "tandem.priority")
    assert told["message"].endswith("it may be high, low, normal")
