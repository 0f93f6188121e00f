"""The judge: how a calibration turns signals into a decision, and which calibrations are refused."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from business_api.abstaining import SHIPPED, CalibratedJudge, Calibration, Point, shipped_calibration
from business_api.assistants import Assistant
from business_api.signals import DIRECTIONS
from tests.samples.found import found

KILN = "The kiln stops at 1300 degrees. Ada Meyer built it in 1998 and Ben Ott painted the door."
OTHER = "Pots are glazed on Mondays. The glaze must not freeze."


def calibration(**other: Any) -> Calibration:
    fields: dict[str, Any] = {
        "embedder": "letters",
        "data": "digest",
        "features": ("dense_top", "line_covers"),
        "mean": (0.5, 0.5),
        "scale": (0.1, 0.2),
        "weights": (1.0, 0.5),
        "bias": 0.0,
        "curve": (Point(0.2, 0.4, 1.0), Point(0.5, 0.2, 0.9), Point(0.8, 0.05, 0.5)),
    }
    return Calibration(**(fields | other))


def test_each_signal_moves_the_probability_in_its_direction() -> None:
    low = calibration().probability({"dense_top": 0.4, "line_covers": 0.5})
    high = calibration().probability({"dense_top": 0.6, "line_covers": 0.5})
    assert low < 0.5 < high


def test_no_single_signal_decides() -> None:
    judged = calibration().probability
    assert judged({"dense_top": 1e9, "line_covers": 0.5}) == judged({"dense_top": 0.9, "line_covers": 0.5})


def test_a_missing_signal_counts_as_an_average_one() -> None:
    judged = calibration().probability
    assert judged({"line_covers": 0.9}) == judged({"dense_top": 0.5, "line_covers": 0.9})


def test_nothing_found_cannot_answer() -> None:
    assert calibration().probability({}) == 0.0


@pytest.mark.parametrize(("risk", "threshold"), [(1.0, 0.2), (0.3, 0.5), (0.2, 0.5), (0.05, 0.8)])
def test_a_risk_chooses_the_lowest_threshold_that_keeps_it(risk: float, threshold: float) -> None:
    assert calibration().threshold_for(risk) == threshold


def test_a_risk_that_was_never_reached_chooses_the_strictest_threshold() -> None:
    assert calibration().threshold_for(0.0) == 0.8


def test_what_a_threshold_meant_can_be_looked_up() -> None:
    assert calibration().expected(0.5) == Point(0.5, 0.2, 0.9)
    assert calibration().expected(0.99) == Point(0.8, 0.05, 0.5)


def test_the_judge_says_nothing_for_an_assistant_that_never_abstains() -> None:
    judge = CalibratedJudge(calibration()).judge
    assert judge("Who built it?", found(KILN), Assistant(abstain="never")) is None


def test_the_judge_takes_the_threshold_from_the_risk_of_the_assistant() -> None:
    judge = CalibratedJudge(calibration()).judge
    assistant = Assistant(abstain="refuse", risk=0.05)
    sure = judge("At how many degrees does the kiln stop?", found(KILN, OTHER), assistant)
    unsure = judge("Who sells bananas?", found(KILN, OTHER, dense=(0.1, 0.1)), assistant)
    assert sure is not None
    assert unsure is not None
    assert sure.threshold == unsure.threshold == 0.8
    assert sure.answerable
    assert not unsure.answerable


def test_a_calibration_is_kept_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "letters.json"
    path.write_bytes(msgspec.json.encode(calibration()))
    assert Calibration.load(path, "letters") == calibration()


def test_a_calibration_for_another_embedder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letters.json"
    path.write_bytes(msgspec.json.encode(calibration()))
    with pytest.raises(ValueError, match="made for the embedder 'letters', but 'other' is used"):
        Calibration.load(path, "other")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"features": ("dense_top", "mood")}, "unknown signals: mood"),
        ({"weights": (1.0,)}, "differ in length"),
        ({"scale": (0.0, 1.0)}, "not above 0"),
        ({"curve": (Point(0.5, 0.2, 0.9), Point(0.2, 0.4, 1.0))}, "do not rise"),
        ({"curve": ()}, "length"),
        ({"format": 2}, "Invalid enum value 2"),
        ({"extra": 1}, "unknown field"),
    ],
)
def test_a_broken_calibration_is_refused_and_says_why(
    tmp_path: Path, broken: dict[str, Any], said: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(calibration()) | broken))
    with pytest.raises(ValueError, match=said):
        Calibration.load(path, "letters")


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("[calibration]")
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.load(path, "letters")


def test_an_embedder_without_a_shipped_calibration_has_none() -> None:
    assert shipped_calibration("another-model") is None


def test_every_shipped_calibration_can_be_used_and_holds_numbers_only() -> None:
    shipped = sorted(SHIPPED.glob("*.json"))
    assert shipped
    for path in shipped:
        read = shipped_calibration(path.stem)
        assert read is not None
        for name, weight in zip(read.features, read.weights, strict=True):
            assert weight * DIRECTIONS[name] > 0
        assert read.curve[0].coverage > 0.99
        assert path.stat().st_size < 10_000


def test_a_calibration_that_cannot_be_read_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BUSINESS_API_CALIBRATION"):
        Calibration.load(tmp_path / "nowhere.json", "letters")


def test_an_overwhelming_signal_is_a_probability_all_the_same() -> None:
    assert msgspec.structs.replace(calibration(), bias=-1e6).probability({"dense_top": 0.5}) < 1e-9
