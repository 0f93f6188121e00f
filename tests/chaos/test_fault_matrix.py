"""Each fault of an LLM server, before and after its first delta, as callers see it, streamed or not."""

import itertools
from collections.abc import Iterator

import pytest

from loadtests.simulated_faults import Fault
from tests.chaos.tier import QUIET, Heard, Tier, said_to, tier

pytestmark = pytest.mark.chaos

BEFORE = {
    **{f"status {status}": (Fault(kind="status", status=status), f"status_{status}") for status in
       (429, 500, 502, 503, 504)},
    "silent": (Fault(kind="silent"), "late"),
    "hang": (Fault(kind="hang"), "late"),
    "reset": (Fault(kind="reset"), "broke_off"),
    "cut": (Fault(kind="cut"), "broke_off"),
    "abort": (Fault(kind="abort"), "broke_off"),
    "error": (Fault(kind="error"), "broke_off"),
    "malformed": (Fault(kind="malformed"), "broke_off"),
}  # fmt: skip
AFTER = {
    "hang": (Fault(kind="hang", after=5), "stalled"),
    "reset": (Fault(kind="reset", after=5), "broke_off"),
    "cut": (Fault(kind="cut", after=5), "broke_off"),
    "abort": (Fault(kind="abort", after=5), "broke_off"),
    "error": (Fault(kind="error", after=5), "broke_off"),
    "malformed": (Fault(kind="malformed", after=5), "broke_off"),
}
TIMEOUTS = ("late", "stalled")
ATTEMPTS = 3
MOST_RESUMES = 3

before = pytest.mark.parametrize(("fault", "outcome"), BEFORE.values(), ids=BEFORE.keys())
after = pytest.mark.parametrize(("fault", "outcome"), AFTER.values(), ids=AFTER.keys())
both = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
serials = itertools.count()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tier]:
    with tier(tmp_path_factory.mktemp("chaos"), 2, **QUIET) as found:
        yield found


def asked_of_the_broken_one(running: Tier, *, stream: bool) -> tuple[Heard, int]:
    """The first of two answers in turn that met the replica that fails, and its serial."""
    for serial in itertools.islice(serials, 2):
        heard = running.ask(serial, stream=stream)
        if len(heard.trail) > 1:
            return heard, serial
    raise AssertionError("neither of two questions in turn met the broken replica")


def answered_by_the_other(running: Tier, fault: Fault, outcome: str, *, stream: bool) -> Heard:
    """An answer whose replica failed: whole, and the text that an undisturbed one has."""
    running.spoil(fault, 1)
    heard, serial = asked_of_the_broken_one(running, stream=stream)
    assert (heard.status, heard.ended, heard.text) == (200, "whole", said_to(serial))
    assert heard.trail == [outcome, "answered"]
    assert heard.exchange["outcome"] == "answered"
    return heard


@both
@before
def test_what_fails_before_the_first_delta_is_answered_in_full_by_the_other_replica(
    running: Tier, fault: Fault, outcome: str, stream: bool
) -> None:
    assert not answered_by_the_other(running, fault, outcome, stream=stream).resumed


@both
@after
def test_what_fails_after_the_first_delta_is_gone_on_with_to_the_same_text(
    running: Tier, fault: Fault, outcome: str, stream: bool
) -> None:
    assert answered_by_the_other(running, fault, outcome, stream=stream).resumed


@both
@before
def test_what_fails_everywhere_before_the_first_delta_is_a_status_streamed_or_not(
    running: Tier, fault: Fault, outcome: str, stream: bool
) -> None:
    running.spoil(fault, 2)
    heard = running.ask(next(serials), stream=stream)
    assert heard.status == (504 if outcome in TIMEOUTS else 503)
    assert heard.error is not None
    assert heard.text == ""
    asked = 2 if outcome == "status_500" else ATTEMPTS  # the prompt may be what kills
    assert heard.trail == [outcome] * asked
    assert heard.exchange["outcome"] == "failed"


@both
@after
def test_what_fails_everywhere_after_the_first_delta_says_so_and_is_never_cut_in_silence(
    running: Tier, fault: Fault, outcome: str, stream: bool
) -> None:
    running.spoil(fault, 2)
    serial = next(serials)
    heard = running.ask(serial, stream=stream)
    assert heard.error is not None
    assert heard.ended == ("flagged" if stream else "refused")
    assert heard.status == (200 if stream else 504 if outcome in TIMEOUTS else 503)
    assert said_to(serial).startswith(heard.text)
    assert set(heard.trail) == {outcome}
    assert len(heard.trail) <= 1 + MOST_RESUMES * ATTEMPTS
    assert heard.exchange["outcome"] == "failed"


@both
def test_when_the_faults_are_over_all_is_as_before(running: Tier, stream: bool) -> None:
    running.spoil(Fault(kind="status", times=0, share=0.0), 2)
    for serial in itertools.islice(serials, 4):
        heard = running.ask(serial, stream=stream)
        assert (heard.ended, heard.text, heard.trail) == ("whole", said_to(serial), ["answered"])
