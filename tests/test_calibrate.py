"""Fitting and measuring a judge: subjects are held out, weights make sense, figures are right by hand."""

import random
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from business_api.abstaining import Calibration
from evals.calibrate import (
    MIX,
    cross_validated,
    curve_of,
    features_of,
    fit,
    folds_of,
    weights_of,
    write,
)
from evals.selective import Case, Kind, Split, auroc, bootstrapped, wrong_at

KINDS: tuple[Kind, ...] = ("answerable", "near_miss", "off_topic")
COVERED = {"answerable": 0.8, "near_miss": 0.6, "off_topic": 0.1}


def cases(count: int = 240, *, subjects: int = 6, seed: int = 1) -> list[Case]:
    """Cases in which `line_covers` tells the kinds apart, and `names_missing` says the wrong thing."""
    chance = random.Random(seed)
    return [
        Case(
            question=str(number),
            subject=f"s{number % subjects}",
            kind=kind,
            index="all",
            signals={
                "line_covers": COVERED[kind] + chance.gauss(0, 0.1),
                "names_missing": float(kind == "answerable"),
                "opposites": 0.0,
            },
        )
        for number in range(count)
        for kind in [KINDS[number // subjects % 3]]
    ]


def split(right: list[float], wrong: list[float]) -> Split:
    return Split(np.array(right), np.array(wrong), ("a",) * len(right), ("b",) * len(wrong))


def test_auroc_counts_pairs_and_ties_half() -> None:
    assert auroc(split([0.9, 0.5], [0.5, 0.1])) == pytest.approx(3.5 / 4)


def test_wrong_answers_are_counted_where_the_right_ones_are_kept() -> None:
    right = [number / 10 for number in range(1, 11)]
    assert wrong_at(split(right, [0.15, 0.05]), 0.9) == 0.0
    assert wrong_at(split(right, [0.25, 0.05]), 0.9) == 0.5
    assert wrong_at(split(right, [0.25, 0.05]), 1.0) == 0.5


def test_an_interval_draws_whole_subjects() -> None:
    same = Split(np.array([0.9, 0.8]), np.array([0.1, 0.2]), ("a", "a"), ("a", "a"))
    assert bootstrapped(same, auroc).low == bootstrapped(same, auroc).high == 1.0
    mixed = Split(np.array([0.9, 0.1]), np.array([0.5, 0.5]), ("a", "b"), ("a", "b"))
    found = bootstrapped(mixed, auroc)
    assert (found.low, found.mean, found.high) == (0.0, 0.5, 1.0)


def test_a_fitted_judge_tells_the_kinds_apart() -> None:
    made = fit(cases(), embedder="letters", data="digest")
    assert made.probability({"line_covers": 0.9, "names_missing": 0.0}) > 0.5
    assert made.probability({"line_covers": 0.1, "names_missing": 0.0}) < 0.1
    assert (made.embedder, made.data) == ("letters", "digest")
    assert made.made["cases"] == {"answerable": 84, "near_miss": 78, "off_topic": 78}


def test_a_weight_never_contradicts_its_signal() -> None:
    made = fit(cases(), embedder="letters", data="digest")
    assert made.features == ("line_covers",)


def test_a_signal_that_never_differs_or_is_often_missing_is_left_out() -> None:
    some = cases()
    some[0].signals["dense_top"] = 0.5
    assert features_of(some) == ("line_covers", "names_missing")


def test_no_case_is_judged_by_a_model_that_saw_its_subject() -> None:
    """One subject is turned around: a model that had seen it would not be so wrong about it."""
    some = cases(subjects=3)
    turned = [
        msgspec.structs.replace(case, signals=case.signals | {"line_covers": 1 - case.signals["line_covers"]})
        if case.subject == "s0"
        else case
        for case in some
    ]
    probabilities = cross_validated(turned, ["line_covers"])
    of = [(case, p) for case, p in zip(turned, probabilities, strict=True) if case.subject == "s0"]
    right = np.array([p for case, p in of if case.kind == "answerable"])
    wrong = np.array([p for case, p in of if case.kind == "off_topic"])
    assert auroc(split(right.tolist(), wrong.tolist())) == 0.0
    assert folds_of(turned) == 3


def test_each_kind_weighs_its_share_of_the_mix() -> None:
    some = cases()
    weights = weights_of(some)
    total = Counter[str]()
    for case, weight in zip(some, weights, strict=True):
        total[case.kind] += weight / len(some)
    assert total == pytest.approx(dict(MIX))
    fewer = [case for case in some if case.kind != "off_topic"]
    near = [weight for case, weight in zip(fewer, weights_of(fewer), strict=True) if case.kind == "near_miss"]
    assert sum(near) / len(fewer) == pytest.approx(1 - MIX["answerable"])


def test_the_curve_rises_and_ends_where_all_are_answered() -> None:
    some = cases()
    curve = curve_of(some, cross_validated(some, ["line_covers"]))
    assert [point.threshold for point in curve] == sorted({point.threshold for point in curve})
    assert curve[0].coverage == 1.0
    assert curve[0].risk > curve[-1].risk


def test_one_subject_or_one_kind_is_not_enough() -> None:
    with pytest.raises(ValueError, match="two subjects"):
        fit(cases(subjects=1), embedder="letters", data="digest")
    with pytest.raises(ValueError, match="some that they do not"):
        fit([case for case in cases() if case.kind == "answerable"], embedder="letters", data="digest")


def test_a_calibration_is_written_so_that_the_judge_can_read_it(tmp_path: Path) -> None:
    made = fit(cases(), embedder="letters", data="digest", made={"set": "ours"})
    write(made, tmp_path / "new" / "letters.json")
    assert Calibration.load(tmp_path / "new" / "letters.json", "letters") == made
