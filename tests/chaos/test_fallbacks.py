"""Each fault of the LLM tier with another model behind it, as callers see it, streamed or not."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtests.replica_fleet import Fleet
from loadtests.simulated_faults import Fault
from tests.chaos.test_fault_matrix import ATTEMPTS, before, both
from tests.chaos.tier import QUIET, Tier, said_to, tier

pytestmark = pytest.mark.chaos

serials = itertools.count()


@contextmanager
def backed(var: Path, **settings: str) -> Iterator[Tier]:
    """One LLM server, and another one to fall back on."""
    (var / "assistants.toml").write_text('[plain]\nfallbacks = ["small"]\n')
    with Fleet(1, "--preset", "quick", "--set", "answer_tokens=200", "model=tiny") as other:
        more = {
            "ASSISTANTS": str(var / "assistants.toml"),
            "LLM_FALLBACKS": json.dumps({"small": {"url": f"{other.servers[0].url}/v1"}}),
        }
        with tier(var, 1, **settings, **more) as found:
            yield found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tier]:
    with backed(tmp_path_factory.mktemp("fallbacks"), **QUIET) as found:
        yield found


@both
@before
def test_what_fails_before_the_first_delta_is_answered_in_full_by_the_fallback(
    running: Tier, fault: Fault, outcome: str, stream: bool
) -> None:
    running.spoil(fault, 1)
    serial = next(serials)
    heard = running.ask(serial, stream=stream)
    assert (heard.status, heard.ended, heard.text) == (200, "whole", said_to(serial))
    own = 2 if outcome == "status_500" else ATTEMPTS  # the prompt may be what kills
    assert heard.trail == [outcome] * own + ["answered"]
    assert heard.exchange["degraded"] == ["fallback_model"]
    assert heard.exchange["versions"]["model"] == "tiny"
    assert heard.exchange["outcome"] == "answered"


@both
def test_when_the_faults_are_over_the_tier_answers_itself(running: Tier, stream: bool) -> None:
    running.spoil(Fault(kind="status", times=0, share=0.0), 1)
    serial = next(serials)
    heard = running.ask(serial, stream=stream)
    assert (heard.text, heard.trail) == (said_to(serial), ["answered"])
    assert "degraded" not in heard.exchange


def test_who_waits_for_a_frozen_server_goes_to_the_fallback_until_it_thaws(tmp_path: Path) -> None:
    quick = {"LLM__STALL_DEADLINE": "0.5", "LLM__PROBE_DEADLINE": "0.5", "LLM__PROBE_SECONDS": "0.2"}
    with backed(tmp_path, LLM__FALLBACK_AFTER="60", **quick) as found:
        with found.fleet.stopped(0):
            first, second = (found.ask(next(serials), stream=True) for _ in range(2))
        assert (first.ended, first.trail) == ("whole", ["stalled", "answered"])
        assert (second.ended, second.trail) == ("whole", ["out", "answered"])
        until = time.monotonic() + 30
        while (last := found.ask(next(serials), stream=True)).trail != ["answered"]:
            assert time.monotonic() < until, last
            time.sleep(0.1)
        assert "degraded" not in last.exchange
