"""How probable it is that the passages answer the question, and from where on we say that they do.

A logistic model over `signals`, fitted on questions whose answers are known (evals/calibrate.py) and kept as
a small JSON file: numbers only. It holds for the embedder that its signals came from, and for no other.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from business_api.assistants import Assistant
from business_api.exchange import Found, Judgement
from business_api.signals import DIRECTIONS, signals

SHIPPED = Path(__file__).parent / "calibration"
"""Calibrations that come with the program: `<embedder>.json`."""
MOST = 3.0
"""Deviations from the mean beyond which a signal counts no more: no single one may decide."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Numbers = tuple[float, ...]


class Point(msgspec.Struct, frozen=True, array_like=True):
    """What a threshold meant for questions that were held out.

    `risk` is the share of wrong answers among those given (no passage answers the question), `coverage` the
    share of the questions with an answer that are still given one.
    """

    threshold: Share
    risk: Share
    coverage: Share


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted model; `mean`, `scale`, `weights` in the order of `features`.

    `data` is the digest of the set that it was fitted on, `curve` has rising thresholds, `made` says how.
    """

    format: Literal[1] = 1
    embedder: str
    data: str
    features: tuple[str, ...]
    mean: Numbers
    scale: Numbers
    weights: Numbers
    bias: float
    curve: Annotated[tuple[Point, ...], msgspec.Meta(min_length=1)]
    made: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if unknown := set(self.features) - DIRECTIONS.keys():
            raise ValueError(f"unknown signals: {', '.join(sorted(unknown))}")
        if {len(self.mean), len(self.scale), len(self.weights)} != {len(self.features)}:
            raise ValueError("features, mean, scale and weights differ in length")
        if not all(map(math.isfinite, (*self.mean, *self.scale, *self.weights, self.bias))):
            raise ValueError("a number is not finite")
        if min(self.scale, default=1.0) <= 0:
            raise ValueError("a scale is not above 0")
        thresholds = [point.threshold for point in self.curve]
        if thresholds != sorted(thresholds):
            raise ValueError("the thresholds of the curve do not rise")

    @classmethod
    def load(cls, path: Path, embedder: str) -> "Calibration":
        """Read a calibration for this embedder. Raises ValueError that says what to do."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as exc:
            raise ValueError(f"the calibration (BUSINESS_API_CALIBRATION) cannot be read: {exc}") from exc
        except (msgspec.DecodeError, ValueError) as exc:
            raise ValueError(f"{path}: not a calibration: {exc}") from exc
        if found.embedder != embedder:
            raise ValueError(
                f"{path}: made for the embedder {found.embedder!r}, but {embedder!r} is used, whose "
                "signals mean something else: make one with `business-api eval calibrate`"
            )
        return found

    def probability(self, found: dict[str, float]) -> float:
        """That the passages answer; a signal that is missing counts as an average one. None at all: 0."""
        if not found:
            return 0.0
        total = self.bias
        for name, mean, scale, weight in zip(self.features, self.mean, self.scale, self.weights, strict=True):
            deviation = (found.get(name, mean) - mean) / scale
            total += weight * max(-MOST, min(MOST, deviation))
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, total))))

    def threshold_for(self, risk: float) -> float:
        """The lowest threshold whose risk was at most this; the strictest one if none was so careful."""
        careful = (point.threshold for point in self.curve if point.risk <= risk)
        return next(careful, self.curve[-1].threshold)

    def expected(self, threshold: float) -> Point:
        """What this threshold meant: the curve's point at or above it."""
        at = bisect_left([point.threshold for point in self.curve], threshold)
        return self.curve[min(at, len(self.curve) - 1)]


@dataclass(frozen=True)
class CalibratedJudge:
    """A Judge by the calibration of the embedder in use."""

    calibration: Calibration

    def judge(self, question: str, found: Found, assistant: Assistant) -> Judgement | None:
        """Of the question by itself; None for an assistant that never abstains."""
        if assistant.abstain == "never":
            return None
        probability = self.calibration.probability(signals(question, found.candidates, found.passages))
        return Judgement(probability, self.calibration.threshold_for(assistant.risk))


def shipped_calibration(embedder: str) -> Calibration | None:
    """The calibration that comes with the program for this embedder; None if there is none."""
    path = SHIPPED / f"{embedder}.json"
    return Calibration.load(path, embedder) if path.is_file() else None
