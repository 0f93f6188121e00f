"""The store of exchanges: listed, opened, continued, judged, each tenant for itself."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from business_api.errors import Unavailable
from business_api.exchange import CONTRACT, Degradation, Exchange, Outcome
from business_api.settings import Settings
from business_api.sink import ExchangeStore, open_store
from tests.exchanges import exchange


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExchangeStore]:
    with closing(ExchangeStore(tmp_path / "exchanges.sqlite", patience=0.05)) as opened:
        yield opened


def keep(store: ExchangeStore, *exchanges: Exchange) -> int:
    return store.add([msgspec.json.encode(one) for one in exchanges])


def test_an_exchange_comes_back_as_it_was(store: ExchangeStore) -> None:
    kept = exchange("a", degraded=[Degradation.HISTORY_CUT], question="Ünï \U0001f642 \x00?", key="tdm_1")
    keep(store, kept)
    assert store.get("default", "a") == kept


def test_a_record_says_its_contract(store: ExchangeStore) -> None:
    keep(store, exchange("a"))
    assert msgspec.json.decode(store.get_json("default", "a") or b"")["contract"] == CONTRACT


def test_a_line_of_the_list_says_how_it_went(store: ExchangeStore) -> None:
    error = {"message": "too late", "type": "server_error", "code": "upstream_timeout", "param": None}
    failed = exchange(
        "a",
        question="q" * 300,
        conversation="c",
        outcome=Outcome.FAILED,
        error=error,
        degraded=[Degradation.HISTORY_CUT, Degradation.PASSAGES_CUT],
    )
    keep(store, failed)
    (line,) = store.list("default")
    assert (line.id, line.at, line.outcome, line.conversation) == ("a", failed.at, "failed", "c")
    assert (line.question, line.answer) == ("q" * 200, "Port 80 [1].")
    assert line.degraded == ("history_cut", "passages_cut")
    assert (line.error, line.passages, line.prompt_tokens, line.completion_tokens) == (
        "upstream_timeout",
        1,
        3,
        4,
    )
    assert line.timings_ms == {"ttft": 1.5, "total": 2.5}


def test_a_tenant_sees_only_its_own(store: ExchangeStore) -> None:
    keep(store, exchange("a", tenant="a", conversation="c"), exchange("b", tenant="b", conversation="c"))
    assert [line.id for line in store.list("a")] == ["a"]
    assert store.list("a", before="b") == []
    assert store.get("a", "b") is None
    assert store.get_json("a", "b") is None
    assert len(store.history("a", "c", 10)) == 1
    assert not store.add_feedback("a", "b", "up")
    assert store.list("b")[0].rating is None
    assert store.outcomes("a") == {"answered": 1}
    assert store.list("nobody") == []


def test_pages_show_every_exchange_once_newest_first(store: ExchangeStore) -> None:
    keep(store, *(exchange(f"{number:02}", at=float(number // 3)) for number in range(20)))
    seen: list[str] = []
    before = None
    while page := store.list("default", limit=3, before=before):
        seen += [line.id for line in page]
        before = page[-1].id
    assert seen == [f"{number:02}" for number in reversed(range(20))]


def test_the_list_is_filtered_by_outcome_conversation_and_text(store: ExchangeStore) -> None:
    keep(
        store,
        exchange("a", outcome=Outcome.REFUSED, question="what of 100%?", answer=""),
        exchange("b", conversation="c", answer="Under_score"),
        exchange("c", conversation="c", question="UNDER score"),
    )

    def found(**wanted: str) -> set[str]:
        return {line.id for line in store.list("default", **wanted)}  # type: ignore[arg-type]

    assert found(outcome=Outcome.REFUSED) == {"a"}
    assert found(conversation="c") == {"b", "c"}
    assert found(text="under score") == {"c"}
    assert found(text="under_score") == {"b"}
    assert found(text="100%") == {"a"}
    assert found(text="0%?") == {"a"}
    assert found(text="\\") == set()
    assert found(text="' OR 1=1 --") == set()
    assert found(conversation="c", text="score", outcome=Outcome.ANSWERED) == {"b", "c"}


def test_a_conversation_continues_with_what_was_answered_last(store: ExchangeStore) -> None:
    keep(
        store,
        *(exchange(question=f"q{n}", answer=f"a{n}", at=float(n), conversation="c") for n in range(5)),
        exchange(question="lost", outcome=Outcome.FAILED, at=9.0, conversation="c"),
        exchange(question="elsewhere", at=9.0, conversation="d"),
    )
    assert store.history("default", "c", 2) == [("q3", "a3"), ("q4", "a4")]
    assert store.history("default", "nothing", 2) == []


def test_the_last_word_of_a_reader_counts(store: ExchangeStore) -> None:
    keep(store, exchange("a"))
    assert store.add_feedback("default", "a", "down", "wrong port")
    assert store.add_feedback("default", "a", "up")
    assert store.list("default")[0].rating == "up"
    assert not store.add_feedback("default", "unknown", "up")


def test_a_record_that_comes_again_is_stored_once_and_keeps_its_rating(store: ExchangeStore) -> None:
    keep(store, exchange("a"))
    store.add_feedback("default", "a", "up")
    assert keep(store, exchange("a"), exchange("a")) == 2
    assert [line.rating for line in store.list("default")] == ["up"]


def test_what_is_no_exchange_is_left_out(store: ExchangeStore) -> None:
    good = msgspec.json.encode(exchange("a"))
    assert store.add([b"", b"null", good, b'{"question": 1}', b"\xff", b"[" * 100_000]) == 1
    assert [line.id for line in store.list("default")] == ["a"]


def test_many_are_stored_though_sqlite_cannot_take_one_of_them(store: ExchangeStore) -> None:
    with store._connected() as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)  # a thousand million bytes otherwise
    many = [msgspec.json.encode(exchange(f"e{number:02}")) for number in range(75)]
    many[40] = msgspec.json.encode(exchange("e40", question="w" * 20_000))
    assert store.add([*many[:10], b"{}", *many[10:], many[3]]) == 75
    assert {line.id for line in store.list("default", limit=100)} == {f"e{n:02}" for n in range(75)} - {"e40"}


@pytest.mark.parametrize(
    ("size", "count", "statements"), [(10, 64, 2), (10, 43, 5), (20_000, 64, 8), (10**6, 9, 9)]
)
def test_a_statement_holds_few_large_records(
    store: ExchangeStore, size: int, count: int, statements: int
) -> None:
    executed: list[str] = []
    with store._connected() as connection:
        connection.set_trace_callback(lambda text: executed.append(text[:6]))
    assert (
        keep(store, *(exchange(f"e{number}", question="w" * (size // 2)) for number in range(count))) == count
    )
    assert executed.count("INSERT") == statements


def test_a_record_of_another_version_is_listed_and_shown_as_it_was(store: ExchangeStore) -> None:
    later = msgspec.json.decode(msgspec.json.encode(exchange("a")))
    later |= {"invented": 1, "passages": [{"new": "form"}], "timings_ms": {"total": None}}
    assert store.add([msgspec.json.encode(later)]) == 1
    assert store.list("default")[0].timings_ms == {}
    assert store.get_json("default", "a") == msgspec.json.encode(later)
    with pytest.raises(Unavailable, match="cannot read"):
        store.get("default", "a")


def test_threads_may_use_one_store_at_once(tmp_path: Path) -> None:
    store = ExchangeStore(tmp_path / "exchanges.sqlite")
    wrong: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(20):
                keep(store, exchange(f"{name}{number}", tenant=name))
                assert len(store.list(name)) == number + 1
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            wrong.append(exc)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == []


def test_a_locked_store_is_unavailable_for_writing_and_still_read(
    store: ExchangeStore, tmp_path: Path
) -> None:
    keep(store, exchange("a"))
    with closing(sqlite3.connect(tmp_path / "exchanges.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as caught:
            keep(store, exchange("b"))
        assert "lock" not in caught.value.message
        assert [line.id for line in store.list("default")] == ["a"]
    assert keep(store, exchange("b")) == 1


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "exchanges.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(ValueError, match=r"exchanges\.sqlite"), open_store(Settings(var=tmp_path)):
        pass


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "exchanges.sqlite")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="newer version"), open_store(Settings(var=tmp_path)):
        pass


def test_the_store_is_opened_beside_a_service(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path / "var")
    with open_store(settings) as one, open_store(settings) as two:
        keep(one, exchange("a"))
        assert two.get("default", "a")
