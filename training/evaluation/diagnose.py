"""Diagnosis of a fitted head and its data."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.errors import InvalidImageError
from regraft.image.encode import thumbnail
from regraft.label_rules import listed
from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray, Head
from regraft.stores.images import ImageFile
from training.evaluation.calibration import calibration
from training.evaluation.duplicates import Duplicates, near_duplicates
from training.evaluation.findings import Findings, Judged, Pair, Picture
from training.evaluation.label_errors import MIN_CLASS, label_errors, top_losses
from training.head.features import Features

MAX_LABEL_ERRORS: Final = 48
THUMBNAIL_PX: Final = 160
_NAMED: Final = 5


def diagnose(
    features: Features,
    head: Head,
    temperature: float,
    unseen_rows: npt.NDArray[np.int64],
    unseen_probabilities: FloatArray,
    files: Mapping[str, str],
) -> Findings:
    """Diagnose a head and the data that it was fitted on.

    Args:
        features: training and holdout rows.
        head: temperature folded in.
        temperature: that one.
        unseen_rows: int64 [m], rows of ``features.train()`` that were predicted by heads not fitted on them.
        unseen_probabilities: float32 [m, K], what these heads said.
        files: image hash to where the picture was found, for people; a hash stands for itself where it is missing.

    Returns:
        Calibration, top losses, label errors, duplicates, and notes on them.
    """
    probabilities = head.probabilities(features.embedding)
    predicted = np.flatnonzero(~features.is_holdout)[unseen_rows]
    probabilities[predicted] = unseen_probabilities
    holdout = np.flatnonzero(features.is_holdout)
    unseen = np.sort(np.concatenate([holdout, predicted]))

    worst = holdout[top_losses(probabilities[holdout], features.label_index[holdout])]
    wrong = label_errors(probabilities[unseen], features.label_index[unseen])
    duplicates = near_duplicates(features.embedding, probabilities.argmax(axis=1), features.is_holdout)

    def judged(row: int) -> Judged:
        return judged_picture(features, row, probabilities[row], files)

    return Findings(
        notes=tuple(filter(None, [_passed_over(features, unseen), _leak(duplicates)])),
        calibration=calibration(head, temperature, features),
        top_losses=tuple(judged(row) for row in worst),
        label_errors=tuple(judged(row) for row in unseen[wrong[:MAX_LABEL_ERRORS]]),
        label_errors_found=len(wrong),
        duplicates=named_pairs(duplicates, features, files),
        duplicates_found=duplicates.found,
        duplicates_across=duplicates.across,
    )


def thumbnails(findings: Findings, paths: Mapping[str, ImageFile]) -> dict[str, bytes]:
    """Make thumbnails of the report's pictures, by hash; skip unreadable ones."""
    judged = (*findings.top_losses, *findings.label_errors, *findings.doubted)
    shown: set[str] = {picture.sha256 for picture in judged}
    shown |= {picture.sha256 for pair in findings.duplicates for picture in (pair.first, pair.second)}
    return small_pictures({name: paths[name] for name in sorted(shown & paths.keys())})


def small_pictures(paths: Mapping[str, ImageFile]) -> dict[str, bytes]:
    """Make thumbnails as JPEGs by image hash; skip unreadable ones."""

    def shrink(name: str) -> bytes:
        try:
            return thumbnail(paths[name].read_bytes(), THUMBNAIL_PX)
        except (InvalidImageError, OSError):
            return b""

    with ThreadPoolExecutor(cpu_budget()) as pool:
        return {name: small for name, small in zip(paths, pool.map(shrink, paths), strict=True) if small}


def _picture(features: Features, row: int, files: Mapping[str, str]) -> Picture:
    sha256 = features.sha256[row]
    split = "holdout" if features.is_holdout[row] else "train"
    return Picture(sha256, files.get(sha256, sha256), split, features.labels[features.label_index[row]])


def named_pairs(duplicates: Duplicates, features: Features, files: Mapping[str, str]) -> tuple[Pair, ...]:
    """Return near-duplicates as pictures, named by ``files``."""
    return tuple(
        Pair(_picture(features, first, files), _picture(features, second, files), float(cosine))
        for (first, second), cosine in zip(duplicates.pairs, duplicates.cosine, strict=True)
    )


def judged_picture(features: Features, row: int, probabilities: FloatArray, files: Mapping[str, str]) -> Judged:
    """Judge a row of features by probabilities [K]."""
    return Judged.of(_picture(features, row, files), features.labels, probabilities)


def _passed_over(features: Features, unseen: npt.NDArray[np.int64]) -> str:
    counts = np.bincount(features.label_index[unseen], minlength=len(features.labels))
    small = [label for label, count in zip(features.labels, counts, strict=True) if count < MIN_CLASS]
    if not small:
        return ""
    return (
        f"Labels were not checked of classes with fewer than {MIN_CLASS} images that were judged by heads that had not "
        f"seen them: {listed(small, _NAMED)}."
    )


def _leak(duplicates: Duplicates) -> str:
    if not duplicates.across:
        return ""
    return (
        f"Near-duplicates across training and holdout images: {duplicates.across}. "
        "What the head saw is asked of it again, so its accuracy on new pictures may be lower than the one above."
    )
