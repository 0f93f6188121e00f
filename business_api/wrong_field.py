"""What msgspec finds wrong with a value, for those who wrote it: which field, and what it may be."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec.inspect as types

_UNKNOWN = re.compile(r"Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?")
_MISSING = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.?(.*)`)?")
_AT = re.compile(r" - at `\$\.?([^`]*)`\Z")


def wrong_field(told: str, wanted: Any) -> tuple[str, str | None]:
    """What a ValidationError has `told` of a value that should be `wanted`, a type: a message, the field."""
    for what, found in (("unsupported", _UNKNOWN.match(told)), ("missing", _MISSING.match(told))):
        if found is not None:
            name = f"{found[2]}.{found[1]}" if found[2] else found[1]
            return f"{what} field: {name}", name
    if (field := _AT.search(told)) is None:
        return told, None
    choices = _choices(wanted, field[1]) if told.startswith("Invalid enum value") else ()
    may_be = f"; it may be {', '.join(choices)}" if choices else ""
    return f"{told[: field.start()]}{field[0].replace('$', '', 1)}{may_be}", field[1]


def _choices(wanted: Any, path: str) -> tuple[str, ...]:
    """The values that the field at `path` may have; none when it is not found, as in a list."""
    here = [*_each(types.type_info(wanted))]
    for step in path.split("."):
        objects = (kind for kind in here if isinstance(kind, types.StructType | types.DataclassType))
        fields = (field for kind in objects for field in kind.fields if field.encode_name == step)
        here = [kind for field in fields for kind in _each(field.type)]
    return tuple(str(value) for kind in here if isinstance(kind, types.LiteralType) for value in kind.values)


def _each(kind: types.Type) -> Iterator[types.Type]:
    """The type, or those of a union."""
    yield from kind.types if isinstance(kind, types.UnionType) else (kind,)
