"""Suggestions for labelling, from the pictures that nobody has labelled yet.

A label teaches about the pictures that are like its own. So pictures are chosen one after the other, each the one that
does most for those that are still worth asking about: they count by how little the head knows of them, more while their
class has few examples, fully where they are novel, and the less, the more one chosen or labelled is like them already.
That is facility location weighted by doubt (Bae, Oliveira and Sutherland, "Uncertainty Herding", 2024): a batch is
diverse, and what is nearly the same as another is held back. Without a head all pictures count alike: typical ones come
first, and later those that it wavers at. `benchmarks.suggestions` has what other choices are worth.

A share is drawn by lot: without it nobody could tell what the choice is worth, nor how the model fares on what it is
really asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray, Head

FEW_EXAMPLES: Final = 10
RANDOM_SHARE: Final = 0.2
_NARROWNESS: Final = 2.0
"""How fast likeness falls with the cosine of centred embeddings: it is 1/e at 1/2."""
_DUPLICATE_COSINE: Final = 0.95
"""From which on one of two pictures teaches nothing more."""
_BLOCK: Final = 512

_Rows = npt.NDArray[np.intp]


class Reason(StrEnum):
    """The reason for a suggestion."""

    RANDOM = "random"
    TYPICAL = "typical"
    UNCERTAIN = "uncertain"
    NOVEL = "novel"


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The knowledge of a model.

    Attributes:
        head: that serves.
        labels: its K labels.
        novelty_threshold: beyond it a picture is novel.
        examples: the number that each label has.
    """

    head: Head
    labels: Sequence[str]
    novelty_threshold: float
    examples: Mapping[str, int]


@dataclass(frozen=True)
class Suggestion:
    """A picture to label, with the head's answer where there is a head.

    Attributes:
        row: of the picture.
        reason: for it.
        alike: how many pictures it stands for: those that no other chosen or labelled one is more like.
        why: the reason in words.
        label: the head's answer.
        probability: of the answer.
        other_label: the second best.
        other_probability: of the second best.
        novelty: 0 to 2.
    """

    row: int
    reason: Reason
    alike: int
    why: str
    label: str = ""
    probability: float = 0.0
    other_label: str = ""
    other_probability: float = 0.0
    novelty: float = 0.0


def suggest(
    embedding: FloatArray, labelled: FloatArray, knowledge: Knowledge | None, count: int, seed: int | None = None
) -> list[Suggestion]:
    """Choose pictures to label, the most useful first and the random share last.

    There are fewer than ``count`` where all others are nearly the same as one that was chosen or has a label.

    Args:
        embedding: float32 [N, D], of the pictures to choose from.
        labelled: float32 [M, D], of those that have a label.
        knowledge: None while there is no head.
        count: the most to suggest.
        seed: of the lot.
    """
    if not len(embedding):
        return []
    share = max(1, round(RANDOM_SHARE * min(count, len(embedding))))
    drawn = [int(row) for row in np.random.default_rng(seed).permutation(len(embedding))[:share]]
    reading = _Reading(embedding, knowledge)
    coverage = _Coverage(embedding, labelled, drawn, reading.weight)
    chosen = coverage.take(count - share)
    alike = coverage.stands_for(chosen + drawn)
    reasons = [reading.reason(row) for row in chosen] + [Reason.RANDOM] * share
    return [reading.suggestion(*each) for each in zip(chosen + drawn, reasons, alike, strict=True)]


@dataclass(frozen=True, eq=False)
class _Reading:
    """The answers of a head, if there is one, to pictures [N, D]."""

    embedding: FloatArray
    knowledge: Knowledge | None

    @cached_property
    def weight(self) -> FloatArray:
        """The worth of asking about each [N], 0 to 1."""
        if self.knowledge is None:
            return np.ones(len(self.embedding), np.float32)
        margin = np.subtract(*np.take_along_axis(self._probabilities, self._two_best, axis=1).T)
        return np.where(self._is_novel, 1, np.maximum(1 - margin, self._youth)).astype(np.float32)

    def reason(self, row: int) -> Reason:
        """Return why to ask about a picture, but for the lot."""
        if self.knowledge is None or (self._youth[row] > 0 and not self._is_novel[row]):
            return Reason.TYPICAL
        return Reason.NOVEL if self._is_novel[row] else Reason.UNCERTAIN

    def suggestion(self, row: int, reason: Reason, alike: int) -> Suggestion:
        """Return the suggestion of a picture, with its reason in words."""
        if self.knowledge is None:
            return Suggestion(row, reason, alike, _why(reason, alike))
        best, other = self._two_best[row]
        answer = Suggestion(
            row,
            reason,
            alike,
            "",
            self.knowledge.labels[best],
            float(self._probabilities[row, best]),
            self.knowledge.labels[other] if other != best else "",
            float(self._probabilities[row, other]) if other != best else 0.0,
            float(self._novelty[row]),
        )
        return replace(answer, why=_why(reason, alike, answer, self.knowledge))

    @cached_property
    def _probabilities(self) -> FloatArray:
        return self._knowledge.head.probabilities(self.embedding)

    @cached_property
    def _novelty(self) -> FloatArray:
        return self._knowledge.head.novelty(self.embedding)

    @cached_property
    def _two_best(self) -> _Rows:
        """The columns of the two best labels [N, 2]; a single one twice."""
        return np.argsort(-self._probabilities, axis=1, kind="stable")[:, [0, min(1, len(self._knowledge.labels) - 1)]]

    @cached_property
    def _is_novel(self) -> npt.NDArray[np.bool_]:
        return self._novelty > self._knowledge.novelty_threshold

    @cached_property
    def _youth(self) -> FloatArray:
        """The want of examples of the label that each is answered with [N].

        It is 1 where there are none, and 0 from `FEW_EXAMPLES` on.
        """
        counts = np.array([self._knowledge.examples.get(label, 0) for label in self._knowledge.labels])
        return np.asarray(np.maximum(1 - counts / FEW_EXAMPLES, 0)[self._two_best[:, 0]], np.float32)

    @property
    def _knowledge(self) -> Knowledge:
        assert self.knowledge is not None
        return self.knowledge


def _why(reason: Reason, alike: int, answer: Suggestion | None = None, knowledge: Knowledge | None = None) -> str:
    """Return a reason in words."""
    if reason is Reason.RANDOM:
        return "drawn by lot"
    stands_for = f"stands for {alike} picture{'s' if alike != 1 else ''} like it"
    if answer is None or knowledge is None:
        return stands_for
    if reason is Reason.UNCERTAIN:
        read_as = f"{answer.label} ({answer.probability:.2f})"
        between = f"between {read_as} and {answer.other_label} ({answer.other_probability:.2f})"
        return f"{between if answer.other_label else read_as}; {stands_for}"
    if reason is Reason.NOVEL:
        return f"novelty {answer.novelty:.2f}, beyond {knowledge.novelty_threshold:.2f}; {stands_for}"
    count = knowledge.examples.get(answer.label, 0)
    return f"{answer.label} has {count} example{'s' if count != 1 else ''}; {stands_for}"


class _Coverage:
    """The likeness of N pictures to the nearest chosen or labelled ones."""

    def __init__(self, embedding: FloatArray, labelled: FloatArray, drawn: Sequence[int], weight: FloatArray) -> None:
        """Begin with the labelled ones and those that are drawn already.

        Args:
            embedding: float32 [N, D].
            labelled: float32 [M, D].
            drawn: rows of the pictures.
            weight: float32 [N], what each counts.
        """
        mean = (embedding.sum(axis=0) + labelled.sum(axis=0)) / (len(embedding) + len(labelled))
        self._directions = _directions(embedding, mean)
        self._weight = weight
        self._cosines = np.full(len(embedding), -1, np.float32)
        for start in range(0, len(labelled), _BLOCK):
            block = _directions(labelled[start : start + _BLOCK], mean)
            np.maximum(self._cosines, (self._directions @ block.T).max(axis=1), out=self._cosines)
        self._labelled = self._cosines.copy()
        for row in drawn:
            self._cover(row)

    def take(self, count: int) -> list[int]:
        """Choose rows greedily, each with the largest gain.

        A gain only shrinks as others are chosen: so only one that is still the largest is computed anew (Minoux, 1978).
        """
        chosen: list[int] = []
        gains = np.concatenate([self._gains(rows) for rows in _blocks(len(self._weight))])
        while len(chosen) < count:
            gains[self._cosines >= _DUPLICATE_COSINE] = 0  # chosen ones too
            row = int(gains.argmax())
            if gains[row] <= 0:
                break
            (gains[row],) = self._gains(np.array([row]))
            if gains[row] >= gains.max():
                chosen.append(row)
                self._cover(row)
        return chosen

    def stands_for(self, rows: Sequence[int]) -> list[int]:
        """Count the pictures that each row stands for.

        No other row and no labelled picture is more like them.
        """
        cosines = np.stack([self._labelled, *(self._directions @ self._directions[row] for row in rows)])
        return [int(count) for count in np.bincount(cosines.argmax(axis=0), minlength=len(cosines))[1:]]

    def _gains(self, rows: _Rows) -> FloatArray:
        more = _likeness(self._directions @ self._directions[rows].T) - _likeness(self._cosines)[:, None]
        return np.asarray(self._weight @ np.maximum(more, 0))

    def _cover(self, row: int) -> None:
        np.maximum(self._cosines, self._directions @ self._directions[row], out=self._cosines)
        self._cosines[row] = 1


def _blocks(count: int) -> Iterator[_Rows]:
    return (np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _directions(embedding: FloatArray, mean: FloatArray) -> FloatArray:
    centred = embedding - mean
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12), np.float32)


def _likeness(cosine: FloatArray) -> FloatArray:
    return np.asarray(np.exp(_NARROWNESS * (cosine - 1)), np.float32)
