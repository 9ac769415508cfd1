"""What a retrain puts before the gate, and what it tells people of the new labels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray, Head
from regraft.errors import InvalidImageError
from regraft.image import ImageSpec, decode_crop
from training.calibration import calibration
from training.data_changes import data_changes
from training.diagnose import MAX_LABEL_ERRORS, judged_picture
from training.features import Embedder
from training.findings import Findings
from training.gate import Answers, NewLabels, judge
from training.head import FittedHead
from training.objections import Limits
from training.retrain_data import Champion, RetrainData
from training.suspects import label_errors
from training.verdict import Verdict


def judge_retrained(
    champion: Champion, data: RetrainData, fitted: FittedHead, limits: Limits, golden: list[tuple[Path, str]]
) -> tuple[Verdict, Findings]:
    """Judge a refitted head, and look for wrong labels among the new ones.

    Args:
        champion: what it competes with.
        data: what it was fitted on, and the holdout.
        fitted: the new head.
        limits: of the gate.
        golden: pictures that it has to answer rightly, and their labels.
    """
    features, held = data.features, data.features.is_holdout
    unseen = _unseen_answers(data, fitted)
    suspect = np.zeros(len(held), np.bool_)
    suspect[label_errors(unseen, features.label_index)] = True
    answers = Answers(
        champion.artifact.head.probabilities(features.embedding[held]),
        unseen[held],
        features.label_index[held],
        features.labels,
        _where(held, data.source),
    )
    news = NewLabels(
        _where(data.is_new, data.source),
        suspect[data.is_new],
        int((~data.is_new).sum()),
        int(suspect[~data.is_new].sum()),
    )
    looks = golden_answers(golden, champion.embedder, fitted.head, features.labels) if golden else []
    verdict = judge(answers, limits, news=news, golden=looks)
    doubted = _doubted(data, unseen, suspect)
    files = dict(zip(features.sha256, data.source, strict=True))
    findings = Findings(
        calibration=calibration(fitted.head, fitted.temperature, features),
        verdict=verdict,
        changes=data_changes(champion.features, features),
        doubted=tuple(judged_picture(features, int(row), unseen[row], files) for row in doubted[:MAX_LABEL_ERRORS]),
        doubted_found=len(doubted),
    )
    return verdict, findings


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


def _unseen_answers(data: RetrainData, fitted: FittedHead) -> FloatArray:
    """Return probabilities [n, K] of heads that were not fitted on the row: out of fold, or the head on the holdout."""
    answers = fitted.head.probabilities(data.features.embedding)
    answers[np.flatnonzero(~data.features.is_holdout)[fitted.unseen.rows]] = fitted.unseen.probabilities
    return answers


def _doubted(data: RetrainData, unseen: FloatArray, suspect: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the new rows that are answered otherwise: likely wrong ones first, the least probable label first."""
    truth = data.features.label_index
    rows = np.flatnonzero(data.is_new & (unseen.argmax(axis=1) != truth))
    return rows[np.lexsort((unseen[rows, truth[rows]], ~suspect[rows]))]
