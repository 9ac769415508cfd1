"""What a retrain puts before the gate, and what it tells people of the new labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray, Head
from regraft.errors import InvalidImageError
from regraft.image import ImageSpec, decode_crop
from training.calibration import calibration
from training.data_changes import data_changes
from training.diagnose import MAX_LABEL_ERRORS, judged_picture
from training.features import Embedder, Features
from training.findings import Findings, Judged
from training.gate import Answers, NewLabels, judge
from training.head import FittedHead
from training.objections import Limits
from training.remarks import remarks
from training.retrain_data import FIRST_SOURCE, Champion, RetrainData
from training.suspects import label_errors
from training.verdict import SuspectLabel, Verdict

MOST_SUSPECTED: Final = 20
"""Labels that a verdict names: as many as a person puts right by hand. The report shows more."""


def judge_retrained(
    champion: Champion, data: RetrainData, fitted: FittedHead, limits: Limits, golden: list[tuple[Path, str]]
) -> Findings:
    """Judge a refitted head by pictures that the champion's own backbone embedded; see `judge_challenger`."""
    looks = golden_answers(golden, champion.embedder, fitted.head, data.features.labels) if golden else []
    judged = np.concatenate([data.features.holdout().embedding, data.lost.embedding])
    before = champion.probabilities(judged)
    return judge_challenger(champion, before, data, fitted, limits, looks)


def judge_challenger(
    champion: Champion,
    before: FloatArray,
    data: RetrainData,
    fitted: FittedHead,
    limits: Limits,
    golden: list[tuple[str, bool]],
) -> Findings:
    """Judge a new head, and look for wrong labels among the new ones.

    Args:
        champion: what it competes with.
        before: what the champion says of the holdout, and then of the lost pictures, probabilities [n, K_old].
        data: what the new head was fitted on, and the holdout.
        fitted: the new head.
        limits: of the gate.
        golden: names of pictures that it has to answer rightly, and whether it does.

    Returns:
        The verdict, what is new since the champion, and the new labels to look at.
    """
    features, held = data.features, data.features.is_holdout
    unseen, judged = _unseen_answers(data, fitted)
    suspect = np.zeros(len(held), np.bool_)
    rows = np.flatnonzero(judged)
    suspect[rows[label_errors(unseen[rows], features.label_index[rows])]] = True
    is_new, is_old = data.is_new & judged, ~data.is_new & judged
    after = np.concatenate([unseen[held], fitted.head.probabilities(data.lost.embedding)])
    answers = _answers(champion, before, data, after)
    news = NewLabels(
        _where(is_new, data.source),
        suspect[is_new],
        int(is_old.sum()),
        int(suspect[is_old].sum()),
    )
    doubted_rows = _doubted(features, is_new, unseen, suspect)
    files = dict(zip(features.sha256, data.source, strict=True))
    doubted = tuple(judged_picture(features, int(row), unseen[row], files) for row in doubted_rows[:MAX_LABEL_ERRORS])
    verdict = judge(answers, limits, news=news, golden=golden)
    verdict = replace(
        verdict,
        cautions=(*verdict.cautions, *data.remarks),
        suspected=tuple(map(_suspected, doubted[: min(verdict.suspects, MOST_SUSPECTED)])),
    )
    return Findings(
        notes=remarks(fitted, features, target_error=champion.artifact.card.settings.get("target_error")),
        calibration=calibration(fitted.head, fitted.temperature, features),
        verdict=verdict,
        changes=data_changes(champion.features, features),
        doubted=doubted,
        doubted_found=len(doubted_rows),
    )


def _answers(champion: Champion, before: FloatArray, data: RetrainData, after: FloatArray) -> Answers:
    """Return what both say of the holdout and the lost pictures, over the same labels.

    A class of the champion that no picture is left of is taken from its answers: it is judged by what both know.
    """
    held, lost = data.features.holdout(), data.lost
    truth = [each.labels[index] for each in (held, lost) for index in each.label_index]
    known, labels = champion.features.labels, data.features.labels
    kept = [label for label in known if label in labels or label in truth]
    judged = (*kept, *(label for label in labels if label not in known))
    among_kept = _columns(before, known, kept)
    return Answers(
        among_kept / np.maximum(among_kept.sum(axis=1, keepdims=True), np.float32(1e-12)),
        _columns(after, labels, judged),
        np.array([judged.index(label) for label in truth], np.int64),
        judged,
        (*_where(data.features.is_holdout, data.source), *[FIRST_SOURCE] * len(lost.sha256)),
    )


def _columns(probabilities: FloatArray, labels: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """Return probabilities [n, K] of the wanted labels in their order, 0 for one that is not there."""
    there = [(column, labels.index(label)) for column, label in enumerate(wanted) if label in labels]
    columns = np.zeros((len(probabilities), len(wanted)), np.float32)
    columns[:, [column for column, _ in there]] = probabilities[:, [index for _, index in there]]
    return columns


def gain(what: str, verdict: Verdict) -> str:
    """Return the reason that the history is given for a version."""
    return f"{what}: holdout accuracy {verdict.champion_accuracy:.4f} -> {verdict.challenger_accuracy:.4f}"


def golden_answers(
    golden: list[tuple[Path, str]], embedder: Embedder, head: Head, labels: tuple[str, ...]
) -> list[tuple[str, bool]]:
    """Return for each golden picture its name and whether a head answers it rightly; one that is no picture is not."""
    return [(f"{label}/{path.name}", _answer(path, embedder, head, labels) == label) for path, label in golden]


def _answer(path: Path, embedder: Embedder, head: Head, labels: tuple[str, ...]) -> str:
    spec: ImageSpec = embedder.spec
    try:
        crop = decode_crop(path.read_bytes(), spec)
    except (InvalidImageError, OSError):
        return ""
    return labels[int(head.probabilities(embedder.run([crop])).argmax())]


def _where(rows: npt.NDArray[np.bool_], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name, wanted in zip(names, rows, strict=True) if wanted)


def _unseen_answers(data: RetrainData, fitted: FittedHead) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return probabilities [n, K], and whether [n] they are of heads that were not fitted on the row.

    Out of fold on training images, of the head itself on the holdout.
    """
    answers, judged = fitted.head.probabilities(data.features.embedding), data.features.is_holdout.copy()
    rows = np.flatnonzero(~data.features.is_holdout)[fitted.unseen.rows]
    answers[rows], judged[rows] = fitted.unseen.probabilities, True
    return answers, judged


def _suspected(picture: Judged) -> SuspectLabel:
    """Return a picture of `judge_challenger`, whose file is the name of its source, for the verdict."""
    return SuspectLabel(
        picture.sha256,
        picture.label,
        picture.answer,
        picture.probability,
        picture.label_probability,
        picture.file,
    )


def _doubted(
    features: Features, is_new: npt.NDArray[np.bool_], unseen: FloatArray, suspect: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the new rows that are answered otherwise: likely wrong ones first, the least probable label first."""
    truth = features.label_index
    rows = np.flatnonzero(is_new & (unseen.argmax(axis=1) != truth))
    return rows[np.lexsort((unseen[rows, truth[rows]], ~suspect[rows]))]
