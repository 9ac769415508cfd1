"""Evidence on a retrain: its verdict, and doubts about labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.errors import InvalidImageError
from regraft.gate_limits import GateLimits
from regraft.image.decode import decode_crop
from regraft.model.artifact import FloatArray, Head
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import FEATURES_FILE, ModelStore
from regraft.stores.originals import FIRST_SOURCE
from training.evaluation.calibration import calibration
from training.evaluation.data_changes import data_changes
from training.evaluation.diagnose import MAX_LABEL_ERRORS, diagnose, judged_picture
from training.evaluation.findings import Findings, Judged
from training.evaluation.label_errors import label_errors
from training.evaluation.novelty_check import check_novelty
from training.gate.anchor import Anchor, load_anchor
from training.gate.first import FirstAnswers, judge_first
from training.gate.judge import Answers, NewLabels, judge
from training.gate.verdict import SuspectLabel
from training.head.abstention import selective
from training.head.features import Embedder, Features
from training.head.fit import FittedHead
from training.head.remarks import out_of_fold, remarks
from training.retrain.data import RetrainData
from training.retrain.quarantine import NOTHING_QUARANTINED, Quarantined, columns_of, unseen_answers
from training.versions.ground import NoVersion
from training.versions.read import StoredVersion

MOST_SUSPECTED: Final = 20
"""Labels that a verdict names: as many as a person puts right by hand. The report shows more."""


@dataclass(frozen=True)
class Terms:
    """The terms that a challenger is held to.

    Attributes:
        limits: of the gate.
        golden: names of golden pictures, and whether the challenger answers them rightly.
        quarantined: labels that were left out.
        anchor: the best versions so far, of pictures of the challenger's own data alone.
        target_error: that was asked for.
    """

    limits: GateLimits = field(default_factory=GateLimits)
    golden: Sequence[tuple[str, bool]] = ()
    quarantined: Quarantined = NOTHING_QUARANTINED
    anchor: Anchor | None = None
    target_error: float | None = None


def judge_retrained(
    champion: StoredVersion, data: RetrainData, fitted: FittedHead, golden: list[tuple[Path, str]], terms: Terms
) -> Findings:
    """Judge a refitted head, on the champion's own backbone.

    As `judge_challenger`; the ``golden`` pictures and the champion's target error join the terms.
    """
    looks = golden_answers(golden, champion.embedder, fitted.head, data.features.labels) if golden else []
    judged = np.concatenate([data.features.holdout().embedding, data.lost.embedding])
    before = champion.probabilities(judged)
    terms = replace(terms, golden=looks, target_error=champion.artifact.card.settings.get("target_error"))
    return judge_challenger(champion.features, before, data, fitted, terms)


def judge_challenger(
    champion: Features, before: FloatArray, data: RetrainData, fitted: FittedHead, terms: Terms
) -> Findings:
    """Judge a new head, and find wrong labels among new ones.

    Args:
        champion: its features.
        before: its probabilities [n, K_old] of the holdout, and then of the lost pictures.
        data: of the new head.
        fitted: the new head.
        terms: of the gate.

    Returns:
        The verdict, what is new since the champion, and the new labels to look at.
    """
    features, is_holdout = data.features, data.features.is_holdout
    unseen, judged = unseen_answers(features, fitted)
    suspect = _likely_wrong(features, unseen, judged)
    is_new, is_old = data.is_new & judged, ~data.is_new & judged
    after = np.concatenate([unseen[is_holdout], fitted.head.probabilities(data.lost.embedding)])
    answers = _answers(champion, before, data, after)
    quarantined, anchor = terms.quarantined.now, terms.anchor
    news = NewLabels(
        (*_where(is_new, data.source), *(entry.source for entry in quarantined)),
        np.concatenate([suspect[is_new], np.ones(len(quarantined), np.bool_)]),
        int(is_old.sum()),
        int(suspect[is_old].sum()),
    )
    doubted_rows = _doubted(features, is_new, unseen, suspect)
    files = dict(zip(features.sha256, data.source, strict=True))
    doubted = tuple(judged_picture(features, int(row), unseen[row], files) for row in doubted_rows[:MAX_LABEL_ERRORS])
    doubted = (*map(_picture_of, quarantined), *doubted)[:MAX_LABEL_ERRORS]
    drift = anchor.compare(answered_rightly(anchor, features, fitted.head)) if anchor else None
    verdict = judge(answers, terms.limits, news=news, golden=terms.golden, anchor=drift)
    verdict = replace(
        verdict,
        cautions=(*verdict.cautions, *data.remarks),
        suspected=tuple(map(_suspected, doubted[: min(verdict.suspects, MOST_SUSPECTED)])),
        quarantined=len(quarantined),
        in_quarantine=terms.quarantined.in_all,
    )
    return Findings(
        notes=remarks(fitted, features, target_error=terms.target_error),
        calibration=calibration(fitted.head, fitted.temperature, features),
        selective=selective(fitted.unseen.probabilities, features.train().label_index[fitted.unseen.rows]),
        verdict=verdict,
        changes=data_changes(champion, features),
        doubted=doubted,
        doubted_found=len(quarantined) + len(doubted_rows),
    )


def judge_first_version(
    base: NoVersion, data: RetrainData, fitted: FittedHead, golden: list[tuple[Path, str]], limits: GateLimits
) -> Findings:
    """Judge a model's first version, and diagnose it as a training run's.

    Args:
        base: the model without a version.
        data: its examples.
        fitted: the head.
        golden: pictures that it has to answer rightly.
        limits: of the gate.
    """
    features = data.features
    unseen, judged = unseen_answers(features, fitted)
    suspect = _likely_wrong(features, unseen, judged)
    looks = golden_answers(golden, base.embedder, fitted.head, features.labels) if golden else []
    answers = FirstAnswers(
        unseen.argmax(axis=1) == features.label_index,
        features.label_index,
        features.labels,
        features.is_holdout,
        features.group,
        data.source,
        suspect,
    )
    verdict = judge_first(answers, limits, golden=looks)
    files = dict(zip(features.sha256, data.source, strict=True))
    found = diagnose(features, fitted.head, fitted.temperature, fitted.unseen.rows, fitted.unseen.probabilities, files)
    worst = tuple(map(_suspected, found.label_errors[: min(verdict.suspects, MOST_SUSPECTED)]))
    return replace(
        found,
        notes=(*base.backbone.notes, *remarks(fitted, features), *found.notes),
        selective=selective(fitted.unseen.probabilities, features.train().label_index[fitted.unseen.rows]),
        novelty=check_novelty(features, fitted),
        cross_validation=out_of_fold(fitted, features),
        verdict=replace(verdict, cautions=(*verdict.cautions, *data.remarks), suspected=worst),
    )


def _likely_wrong(features: Features, unseen: FloatArray, judged: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark likely wrong labels [n], by answers [n, K] to judged rows."""
    suspect = np.zeros(len(judged), np.bool_)
    rows = np.flatnonzero(judged)
    suspect[rows[label_errors(unseen[rows], features.label_index[rows])]] = True
    return suspect


def _answers(champion: Features, before: FloatArray, data: RetrainData, after: FloatArray) -> Answers:
    """Return both heads' answers on holdout and lost pictures.

    A class of the champion that no picture is left of is taken from its answers: it is judged by what both know.
    """
    holdout, lost = data.features.holdout(), data.lost
    truth = [each.labels[index] for each in (holdout, lost) for index in each.label_index]
    labels = data.features.labels
    old_labels = [label for label in champion.labels if label in labels or label in truth]
    judged = (*old_labels, *(label for label in labels if label not in champion.labels))
    of_old_labels = columns_of(before, champion.labels, old_labels)
    return Answers(
        of_old_labels / np.maximum(of_old_labels.sum(axis=1, keepdims=True), np.float32(1e-12)),
        columns_of(after, labels, judged),
        np.array([judged.index(label) for label in truth], np.int64),
        judged,
        (*_where(data.features.is_holdout, data.source), *[FIRST_SOURCE] * len(lost.sha256)),
    )


def anchor_of(
    champion: StoredVersion, store: ModelStore, examples: ExamplesStore, model: str, challenger: Features
) -> Anchor:
    """Return the anchor of the versions so far, for a challenger.

    Where the champion has none, one begins with its pictures that nobody sent. Only those of the challenger are left.
    """
    anchor = load_anchor(store.folder(model, champion.version) / FEATURES_FILE)
    if anchor is None:
        features, sent = champion.features, [example.sha256 for example in examples.labels.sent(model)]
        right = champion.probabilities(features.embedding).argmax(axis=1) == features.label_index
        anchor = Anchor.begin(features, right, ~np.isin(features.sha256, sent))
    return anchor.called_now(champion.changes).restricted_to(challenger)


def answered_rightly(anchor: Anchor, features: Features, head: Head) -> npt.NDArray[np.bool_]:
    """Mark the anchor's pictures, all in ``features``, that a head answers rightly."""
    row_of = {sha256: row for row, sha256 in enumerate(features.sha256)}
    rows = np.array([row_of[sha256] for sha256 in anchor.sha256], np.int64)
    right: npt.NDArray[np.bool_] = (
        head.probabilities(features.embedding[rows]).argmax(axis=1) == features.label_index[rows]
    )
    return right


def golden_answers(
    golden: list[tuple[Path, str]], embedder: Embedder, head: Head, labels: tuple[str, ...]
) -> list[tuple[str, bool]]:
    """Return golden pictures by name, with the correctness of a head's answer.

    What cannot be read is answered wrongly.
    """
    return [(f"{label}/{path.name}", _answer(path, embedder, head, labels) == label) for path, label in golden]


def _answer(path: Path, embedder: Embedder, head: Head, labels: tuple[str, ...]) -> str:
    try:
        crop = decode_crop(path.read_bytes(), embedder.spec)
    except (InvalidImageError, OSError):
        return ""
    return labels[int(head.probabilities(embedder.run([crop])).argmax())]


def _where(rows: npt.NDArray[np.bool_], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name, wanted in zip(names, rows, strict=True) if wanted)


def _picture_of(entry: SuspectLabel) -> Judged:
    return Judged(
        entry.sha256, entry.source, "quarantine", entry.label, entry.answer, entry.probability, entry.label_probability
    )


def _suspected(picture: Judged) -> SuspectLabel:
    """Convert a judged picture, whose file names its source."""
    return SuspectLabel(
        picture.sha256, picture.label, picture.answer, picture.probability, picture.label_probability, picture.file
    )


def _doubted(
    features: Features, is_new: npt.NDArray[np.bool_], unseen: FloatArray, suspect: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the new rows that are answered otherwise, likely wrong ones first.

    Within both the least probable label comes first.
    """
    truth = features.label_index
    rows = np.flatnonzero(is_new & (unseen.argmax(axis=1) != truth))
    return rows[np.lexsort((unseen[rows, truth[rows]], ~suspect[rows]))]
