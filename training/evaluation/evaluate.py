"""Evaluation of a model, or comparison of two, on labelled pictures."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.client.model_answers import ModelAnswers
from regraft.errors import DatasetError
from regraft.files import text_of
from regraft.label_rules import listed, nfc
from regraft.model.artifact import FloatArray
from regraft.model.card import Metrics
from training.data.dataset import Dataset, LabelledImage
from training.data.file_listing import shown_path
from training.evaluation.calibration import reliability
from training.evaluation.findings import Judged, Picture, Reliability, Selective
from training.evaluation.label_errors import top_losses
from training.evaluation.metrics import measure
from training.evaluation.paired_comparison import compare
from training.head.abstention import selective

MOST_DIFFERING: Final = 48
_NAMED: Final = 5

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """A count out of ``images``."""

    count: int
    images: int

    @property
    def share(self) -> float:
        """The share of the images, 0 where there are none."""
        return self.count / self.images if self.images else 0.0


@dataclass(frozen=True)
class Declined:
    """The promise of a target error, with answered and wrong counts."""

    target_error: float
    threshold: float
    answered: Share
    wrong: Share


@dataclass(frozen=True)
class UnknownLabel:
    """A label unknown to the model, with its novel pictures."""

    label: str
    novel: Share


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on labelled pictures.

    Attributes:
        model: what people call it.
        version: 0 where a file's folder does not say.
        labels: of the model.
        metrics: on the pictures whose label it knows; labels that no picture has, or is answered with, are left out.
        novel: of these, those that it calls unlike its training images; ``novel_by_label`` likewise, by label.
        unknown: labels of the data that it does not know; they count nowhere else.
        trained_on: how many of the pictures it was fitted on; None where that is not known.
        unseen: metrics on the others, where there are both.
        top_losses: the most confident mistakes; the first of them.
        failures: by file, why a picture could not be answered.
        seconds: that asking took.
    """

    model: str
    name: str
    version: int
    labels: tuple[str, ...]
    metrics: Metrics
    reliability: Reliability
    selective: Selective | None
    novelty_threshold: float
    novel: Share
    novel_by_label: Mapping[str, Share]
    declined: Declined | None
    unknown: tuple[UnknownLabel, ...]
    trained_on: int | None
    unseen: Metrics | None
    top_losses: tuple[Judged, ...]
    failures: Mapping[str, str]
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Pictures a second, with those unknown or unreadable."""
        asked = self.metrics.images + sum(each.novel.images for each in self.unknown) + len(self.failures)
        return asked / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            **asdict(self),
            "metrics": self.metrics.model_dump(mode="json"),
            "unseen": self.unseen.model_dump(mode="json") if self.unseen else None,
            "images_per_s": self.images_per_s,
        }


@dataclass(frozen=True)
class EvaluationSet:
    """Labelled pictures to judge models by.

    Attributes:
        images: by hash.
        shown: by hash, how people know the file.
        data: the name of the folder or list.
        split: which part of it that is, and where the split comes from.
        left_out: files that take no part, each with its reason.
    """

    images: Mapping[str, LabelledImage]
    shown: Mapping[str, str]
    data: str
    split: str
    left_out: tuple[tuple[str, str], ...]

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Each picture's hash and file."""
        return [(key, image.path) for key, image in self.images.items()]


def evaluation_set(dataset: Dataset, data: Path) -> EvaluationSet:
    """Take the pictures of a part of the data."""
    return EvaluationSet(
        images={image.sha256: image for image in dataset.images},
        shown={image.sha256: shown_path(image.path, data) for image in dataset.images},
        data=text_of(Path(data.resolve().name)),
        split=dataset.split,
        left_out=tuple((shown_path(entry.file, data), entry.reason) for entry in dataset.left_out),
    )


@dataclass(frozen=True)
class ModelRun:
    """A model with its answers on the pictures.

    Attributes:
        model: what people call it.
        answers: what it said, by the pictures' hashes.
        seconds: that asking took.
        trained_on: hashes of the pictures that it was fitted on; None where that is not known.
    """

    model: str
    answers: ModelAnswers
    seconds: float
    trained_on: Collection[str] | None = None


def evaluate(run: ModelRun, pictures: EvaluationSet) -> Evaluation:
    """Evaluate a model by its answers.

    Raises:
        DatasetError: the model knows no label of the data.
    """
    answers = run.answers
    is_known, truth = _known(answers, pictures)
    if not is_known.any():
        raise DatasetError(_mismatch(run.model, answers, pictures))
    by, full = answers.by, answers.probabilities[is_known]
    used = np.union1d(truth, full.argmax(axis=1))  # of a thousand labels the data may have ten
    labels = tuple(by.labels[row] for row in used)
    probabilities, truth = full[:, used], np.searchsorted(used, truth)
    ids = list(compress(answers.ids, is_known))
    group = np.array([pictures.images[key].group for key in ids], np.int64)
    trained = np.array([key in (run.trained_on or ()) for key in ids])
    is_novel = answers.novelty > by.novelty_threshold
    return Evaluation(
        model=run.model,
        name=by.name,
        version=by.version,
        labels=by.labels,
        metrics=_measured(probabilities, truth, labels, group),
        reliability=reliability(probabilities, truth),
        selective=selective(probabilities, truth),
        novelty_threshold=by.novelty_threshold,
        novel=_share(is_novel[is_known]),
        novel_by_label={labels[row]: _share(is_novel[is_known][truth == row]) for row in np.unique(truth)},
        declined=_declined(answers, probabilities, truth),
        unknown=_unknown(answers, pictures, is_novel, is_known),
        trained_on=None if run.trained_on is None else int(trained.sum()),
        unseen=_measured(probabilities[~trained], truth[~trained], labels, group[~trained])
        if 0 < trained.sum() < len(ids)
        else None,
        top_losses=tuple(
            Judged.of(
                Picture(ids[row], pictures.shown[ids[row]], "trained on" if trained[row] else "", labels[truth[row]]),
                labels,
                probabilities[row],
            )
            for row in top_losses(probabilities, truth)
        ),
        failures={pictures.shown[key]: reason for key, reason in answers.failures.items()},
        seconds=run.seconds,
    )


def _known(answers: ModelAnswers, pictures: EvaluationSet) -> tuple[npt.NDArray[np.bool_], _Rows]:
    """Mask known labels [n], and index them."""
    index = {nfc(label): row for row, label in enumerate(answers.by.labels)}
    truth = np.array([index.get(nfc(pictures.images[key].label), -1) for key in answers.ids], np.int64)
    return truth >= 0, truth[truth >= 0]


def _mismatch(model: str, answers: ModelAnswers, pictures: EvaluationSet) -> str:
    data_labels = sorted({pictures.images[key].label for key in answers.ids})
    return (
        f"{model} knows no label of the data: it has {listed(answers.by.labels, _NAMED)}, the data has "
        f"{listed(data_labels, _NAMED)}; are the class folders called as its labels are?"
    )


def _measured(probabilities: FloatArray, truth: _Rows, labels: tuple[str, ...], group: _Rows) -> Metrics:
    metrics = measure(probabilities, truth, labels, group)
    assert metrics, "callers have rows"
    return metrics


def _share(mask: npt.NDArray[np.bool_]) -> Share:
    return Share(int(mask.sum()), len(mask))


def _declined(answers: ModelAnswers, probabilities: FloatArray, truth: _Rows) -> Declined | None:
    by = answers.by
    if by.target_error is None:
        return None
    given = probabilities.max(axis=1) > by.abstains_up_to
    wrong = probabilities.argmax(axis=1) != truth
    return Declined(by.target_error, by.abstains_up_to, _share(given), _share(wrong[given]))


def _unknown(
    answers: ModelAnswers, pictures: EvaluationSet, is_novel: npt.NDArray[np.bool_], is_known: npt.NDArray[np.bool_]
) -> tuple[UnknownLabel, ...]:
    labels = np.array([pictures.images[key].label for key in answers.ids])
    unknown_labels = sorted(set(labels[~is_known].tolist()))
    return tuple(UnknownLabel(label, _share(is_novel[labels == label])) for label in unknown_labels)


@dataclass(frozen=True)
class DifferentAnswer:
    """A picture that two models answer differently."""

    sha256: str
    file: str
    label: str
    answers: tuple[str, str]
    probabilities: tuple[float, float]
    right: tuple[bool, bool]


@dataclass(frozen=True)
class PairedEvaluation:
    """Two models compared on the pictures that both answered and know.

    Attributes:
        accuracy: of the first and of the second.
        only_first: pictures that the first alone answers rightly; likewise ``only_second``.
        p_value: of McNemar's exact test (1947), two-sided: how often models that are equally good differ as much.
        gain: how much lower the second's log loss is, mean over the pictures, in nats, with its standard error.
        agreed: pictures that both answer alike.
        differing: the others, those first that one of the two gets right, the surest first; the first of them.
        differing_found: how many there are in all.
    """

    images: int
    accuracy: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    gain: float
    gain_error: float
    agreed: int
    differing: tuple[DifferentAnswer, ...]
    differing_found: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def evaluate_pair(first: ModelAnswers, second: ModelAnswers, pictures: EvaluationSet) -> PairedEvaluation:
    """Compare the answers of two models by picture.

    Raises:
        DatasetError: there is no picture that both answered and whose label both know.
    """
    # scipy.stats takes most of a second, which one model spares
    from training.gate.noninferiority import p_value_of_difference  # noqa: PLC0415

    common, labels = _in_common(first, second, pictures)
    if not common:
        raise DatasetError("there is no picture that both models answered and whose label both know")
    truth = np.array([labels.index(nfc(pictures.images[key].label)) for key in common], np.int64)
    probabilities = [_aligned(answers, common, labels) for answers in (first, second)]
    answer = [each.argmax(axis=1) for each in probabilities]
    right = [each == truth for each in answer]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    losses = compare(probabilities[0], probabilities[1], truth)
    differ = np.flatnonzero(answer[0] != answer[1])
    surest = np.maximum(*(each.max(axis=1) for each in probabilities))[differ]
    order = differ[np.lexsort((-surest, ~(right[0] | right[1])[differ]))]
    return PairedEvaluation(
        images=len(common),
        accuracy=losses.accuracy,
        only_first=only_first,
        only_second=only_second,
        p_value=p_value_of_difference(only_first, only_second),
        gain=losses.gain,
        gain_error=losses.error if len(common) > 1 else 0.0,
        agreed=len(common) - len(differ),
        differing=tuple(
            DifferentAnswer(
                common[row],
                pictures.shown[common[row]],
                labels[truth[row]],
                (labels[answer[0][row]], labels[answer[1][row]]),
                (float(probabilities[0][row].max()), float(probabilities[1][row].max())),
                (bool(right[0][row]), bool(right[1][row])),
            )
            for row in order[:MOST_DIFFERING]
        ),
        differing_found=len(differ),
    )


def _in_common(first: ModelAnswers, second: ModelAnswers, pictures: EvaluationSet) -> tuple[list[str], list[str]]:
    """List the pictures to compare on, and all labels of both models."""
    labels_of = [[nfc(label) for label in answers.by.labels] for answers in (first, second)]
    both = set(labels_of[0]) & set(labels_of[1])
    answered = set(second.ids)
    common = [key for key in first.ids if key in answered and nfc(pictures.images[key].label) in both]
    return common, list(dict.fromkeys(labels_of[0] + labels_of[1]))


def _aligned(answers: ModelAnswers, common: Sequence[str], labels: Sequence[str]) -> FloatArray:
    """Align probabilities [n, L] to all labels of both models."""
    row = {key: number for number, key in enumerate(answers.ids)}
    place = {label: number for number, label in enumerate(labels)}
    aligned = np.zeros((len(common), len(labels)), np.float32)
    columns = [place[nfc(label)] for label in answers.by.labels]
    aligned[:, columns] = answers.probabilities[[row[key] for key in common]]
    return aligned


@dataclass(frozen=True)
class EvaluationResult:
    """Result of ``regraft evaluate``.

    Attributes:
        data: see `EvaluationSet`, as is the split.
        images: that were asked about.
        left_out: files that took no part, or that a model could not read, each with its reason.
        paired: where there are two models.
    """

    data: str
    split: str
    images: int
    models: tuple[Evaluation, ...]
    paired: PairedEvaluation | None
    left_out: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "data": self.data,
            "split": self.split,
            "images": self.images,
            "models": [each.to_dict() for each in self.models],
            "paired": self.paired.to_dict() if self.paired else None,
            "left_out": [{"file": file, "reason": reason} for file, reason in self.left_out],
        }


def evaluate_models(pictures: EvaluationSet, runs: Sequence[ModelRun]) -> EvaluationResult:
    """Evaluate one model, or two with a comparison.

    Raises:
        DatasetError: a model knows no label of the data, or two have no picture in common.
    """
    models = tuple(evaluate(each, pictures) for each in runs)
    failures = {file: reason for each in models for file, reason in each.failures.items()}
    return EvaluationResult(
        data=pictures.data,
        split=pictures.split,
        images=len(pictures.images),
        models=models,
        paired=evaluate_pair(runs[0].answers, runs[1].answers, pictures) if len(runs) > 1 else None,
        left_out=(*pictures.left_out, *failures.items()),
    )
