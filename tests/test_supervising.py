"""What the supervisor of the workers decides, and what it refuses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from business_api.settings import LlmSettings, Settings
from business_api.supervising import LONGEST_PAUSE, pause_after
from business_api.worker_process import HUNG_SECONDS, Worker
from business_api.workers import share_of
from tests.llm_fixtures import free_port
from tests.programs import run


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "cannot share the embedded index"),
        ({"BUSINESS_API_STORE__URL": "http://127.0.0.1:9", "BUSINESS_API_EMBEDDING__FOLDER": "none"}, "make"),
    ],
)
def test_workers_that_cannot_serve_are_refused_in_one_line(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = run("serve", "--workers", "2", "--port", str(free_port()), var=tmp_path, **variables)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@given(
    workers=st.integers(1, 64),
    in_flight=st.integers(1, 500),
    queued=st.integers(0, 500),
)
def test_the_shares_add_up_to_the_limits(workers: int, in_flight: int, queued: int) -> None:
    settings = Settings(
        workers=workers,
        llm=LlmSettings(max_in_flight=in_flight, max_queued=queued),
        llm_fallbacks={"small": LlmSettings(url="http://small/v1", retry_floor=5, max_in_flight=in_flight)},
    )
    shares = [share_of(settings, number) for number in range(workers)]
    assert sum(share.llm.max_in_flight for share in shares) == max(in_flight, workers)
    assert sum(share.llm.max_queued for share in shares) == queued
    assert {share.guard.limits_shared_by for share in shares} == {workers}
    assert sum(share.llm.retry_floor for share in shares) == pytest.approx(settings.llm.retry_floor)
    fallbacks = [share.llm_fallbacks["small"] for share in shares]
    assert sum(one.retry_floor for one in fallbacks) == pytest.approx(5)
    assert sum(one.max_in_flight for one in fallbacks) == max(in_flight, workers)


def test_the_pauses_between_starts_grow_to_a_limit() -> None:
    assert [pause_after(failures) for failures in range(5)] == [0.0, 0.0, 0.5, 1.0, 2.0]
    assert pause_after(1000) == LONGEST_PAUSE


def test_a_worker_hangs_when_it_has_served_and_its_counts_stand_still() -> None:
    worker = Worker(pid=1, owner="0-1", pipe=0, since=0.0)
    assert not any(worker.hangs(5, 1.0) for _ in range(100))
    worker.ready = True
    assert not any(worker.hangs(number, 1.0) for number in range(100))
    assert not any(worker.hangs(99, 1.0) for _ in range(int(HUNG_SECONDS)))
    assert worker.hangs(99, 1.0)
