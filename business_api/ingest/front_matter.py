"""What a Markdown document says about itself in its front matter: language, tags and date.

The front matter is YAML between two lines of `---` at the very beginning. Only texts are read from it, no
other type and no object, so `no` stays Norwegian. What is missing, odd or not understood is left out.
"""

import datetime

import yaml

from business_api.ingest.outline import FRONT_MATTER
from business_api.passages import About, primary_language

LONGEST = 8000
"""Characters of a front matter that is read; a longer one is only text."""

_TAGS, _TAG_CHARACTERS = 64, 100


def about(text: str) -> About:
    """Read `lang` or `language`, `tags` (a list, or a text with commas) and `date` of a Markdown text."""
    fields = _fields(text)
    language = fields.get("lang") or fields.get("language")
    return About(
        language=primary_language(language.strip()) if isinstance(language, str) else None,
        date=_date(fields.get("date")),
        tags=_tags(fields.get("tags")),
    )


def _fields(text: str) -> dict[object, object]:
    found = FRONT_MATTER.match(text)
    if not found or found.end() > LONGEST:
        return {}
    inner = found[0].strip().split("\n")[1:-1]
    try:
        # BaseLoader makes texts, lists and tables and nothing else
        fields = yaml.load("\n".join(inner), Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _date(said: object) -> datetime.date | None:
    """The day of a date or of a time, as ISO 8601 writes it."""
    try:
        return datetime.date.fromisoformat(said.strip()[:10]) if isinstance(said, str) else None
    except ValueError:
        return None


def _tags(said: object) -> tuple[str, ...]:
    found = said.split(",") if isinstance(said, str) else said if isinstance(said, list) else []
    texts = [tag.strip() for tag in found if isinstance(tag, str)]
    return tuple(dict.fromkeys(tag for tag in texts if 0 < len(tag) <= _TAG_CHARACTERS))[:_TAGS]
