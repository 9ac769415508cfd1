"""Recent answers of a version, and their drift from its reference."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray
from regraft.model.drift import Shift, compare, figures_of, rows_of
from serving.inference.engine import Output
from serving.inference.models_in_memory import ServedModel

MIN_ANSWERS: Final = 100
"""Answers before anything is said of drift."""

DriftState = Literal["not known", "too few", "steady", "drifted"]


@dataclass(frozen=True)
class AnswerWindow:
    """A sliding window of answers.

    Attributes:
        most: answers that it holds; memory is bounded by it.
        span_s: seconds that it reaches back.
        figures: float32 [n, 2 + C], see `regraft.model.drift.figures_of`.
        at_s: float64 [n], when each came, on any one clock.
    """

    most: int
    span_s: float
    figures: FloatArray
    at_s: npt.NDArray[np.float64]

    def slid(self, figures: FloatArray, now_s: float) -> "AnswerWindow":
        """Return the window with new answers, without those too old."""
        is_recent = self.at_s > now_s - self.span_s
        joined = np.concatenate([self.figures[is_recent], figures])[-self.most :]
        at_s = np.concatenate([self.at_s[is_recent], np.full(len(figures), now_s)])[-self.most :]
        return replace(self, figures=joined, at_s=at_s)


@dataclass(frozen=True)
class RecentAnswers:
    """The answers of one version on this server.

    Attributes:
        served: the version.
        window: the recent ones.
        images: all since it went live that were looked at.
        nonsense: the answers that were no numbers; they are in no window.
    """

    served: ServedModel
    window: AnswerWindow
    images: int = 0
    nonsense: int = 0
    _rows: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))

    @staticmethod
    def begin(served: ServedModel, most: int, span_s: float) -> "RecentAnswers":
        """Return the recent answers of a version that has not answered yet."""
        reference = served.card.reference
        rows = rows_of(reference, served.card.labels) if reference else np.empty(0, np.intp)
        window = AnswerWindow(most, span_s, np.empty((0, 2 + len(rows)), np.float32), np.empty(0))
        return RecentAnswers(served, window, _rows=rows)

    def after(self, outputs: Sequence[Output], now_s: float) -> "RecentAnswers":
        """Return them with further answers of this version."""
        if not outputs:
            return replace(self, window=self.window.slid(self.window.figures[:0], now_s))
        probabilities = np.stack([output.probabilities for output in outputs])
        novelty = np.array([output.novelty for output in outputs], np.float32)
        sound = np.isfinite(probabilities).all(axis=1) & np.isfinite(novelty)
        figures = figures_of(probabilities[sound], novelty[sound], self._rows)
        return replace(
            self,
            window=self.window.slid(figures, now_s),
            images=self.images + len(outputs),
            nonsense=self.nonsense + int((~sound).sum()),
        )

    @property
    def distance(self) -> FloatArray:
        """Distance of the answers in the window [n] to the training images."""
        return self.window.figures[:, 0]

    @property
    def confidence(self) -> FloatArray:
        """Confidence of the answers in the window [n]."""
        return self.window.figures[:, 1]

    @property
    def unknown_share(self) -> float:
        """Share of the window beyond the novelty threshold; 0 where it is empty."""
        return float((self.distance > self.served.card.novelty_threshold).mean()) if len(self.distance) else 0.0

    @cached_property
    def shifts(self) -> tuple[Shift, ...]:
        """Shifts of the window from the card's reference, none where either has too little.

        They take a millisecond or so.
        """
        reference = self.served.card.reference
        return compare(reference, self.window.figures) if reference and len(self.distance) >= MIN_ANSWERS else ()

    @property
    def drift(self) -> DriftState:
        """State of the drift, by the shifts."""
        if self.served.card.reference is None:
            return "not known"
        if not self.shifts:
            return "too few"
        return "drifted" if any(shift.drifted for shift in self.shifts) else "steady"

    @property
    def largest_shifts(self) -> tuple[Shift, ...]:
        """Distance, confidence, and the label whose probability differs most."""
        return (*self.shifts[:2], *sorted(self.shifts[2:], key=lambda shift: -shift.ks)[:1])
