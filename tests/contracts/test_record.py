"""What every `Record` promises: the notebook of the tests, and the sink."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from business_api.exchange import Exchange, Outcome, Record
from business_api.settings import Settings
from business_api.sink import Sink
from tests.exchanges import exchange
from tests.fakes import Notebook


@dataclass
class Kept:
    """A Record, and what it has kept under an id."""

    record: Record
    exchange: Callable[[str], Exchange | None]
    count: Callable[[], int]


@pytest.fixture(params=["notebook", "sink"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    if request.param == "notebook":
        notebook = Notebook()
        by_id = lambda name: next((one for one in notebook.exchanges if one.id == name), None)  # noqa: E731
        yield Kept(notebook.record, by_id, lambda: len(notebook.exchanges))
        return
    with closing(Sink.open(Settings(var=tmp_path))) as sink:

        def read(name: str) -> Exchange | None:
            assert sink.drain_now()
            return sink.store.get("default", name)

        def count() -> int:
            assert sink.drain_now()
            return sum(sink.store.outcomes("default").values())

        yield Kept(sink.record, read, count)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_exchange_is_kept_whole_however_it_ended(kept: Kept, outcome: Outcome) -> None:
    made = exchange("a", outcome=outcome, question="Ünï \U0001f642?", conversation="c", key="tdm_1")
    kept.record(made)
    assert kept.exchange("a") == made


def test_an_exchange_that_ended_early_is_kept(kept: Kept) -> None:
    refused = exchange(
        "a", outcome=Outcome.REFUSED, passages=(), prompt=None, answer="", usage=None, error={"code": "x"}
    )
    kept.record(refused)
    assert kept.exchange("a") == refused


def test_every_exchange_is_kept(kept: Kept) -> None:
    for _ in range(100):
        kept.record(exchange())
    assert kept.count() == 100
