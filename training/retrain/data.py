"""Data of a retrain: the champion's features and newer examples. No torch."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.errors import PreconditionError
from regraft.model.artifact import FloatArray
from regraft.progress import Progress, silent
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import ImageFile
from regraft.stores.labels import Example
from regraft.stores.originals import FIRST_SOURCE
from training.gate.verdict import SuspectLabel
from training.head.additional import Additional
from training.head.features import Features, assemble
from training.head.fit import FittedHead, refit
from training.head.views import augmentation_of, embed_views
from training.retrain.classes import FEWEST, Classes, in_order_of, refuse_unseen, settle_classes
from training.retrain.near_copies import near_copies
from training.retrain.sides import BOTH_SIDES, Pair, Sides, leave_enough, settle_sides
from training.versions.ground import Ground

UNKNOWN_SOURCE: Final = "unknown"
NOT_EMBEDDED: Final = "it is not embedded yet"

log = logging.getLogger("regraft.retrain")

Row = tuple[str, str, bool]
"""Image hash, label, whether it is holdout."""


@dataclass(frozen=True)
class QuarantinedRows:
    """Pictures in quarantine, m of them, that nothing is fitted on.

    Attributes:
        sha256: their hashes.
        label: their labels.
        source: of each.
        embedding: float32 [m, D].
        is_holdout: bool [m], their sides.
    """

    sha256: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    embedding: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    is_holdout: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def missing(self, read_as: Iterable[str]) -> dict[str, int]:
        """Count those for training by the class that each is read as."""
        return dict(
            Counter(label for label, is_holdout in zip(read_as, self.is_holdout, strict=True) if not is_holdout)
        )


NO_QUARANTINED_ROWS: Final = QuarantinedRows()


@dataclass(frozen=True)
class RetrainData:
    """Everything to fit on and to judge by.

    Attributes:
        features: labels begin with those of the champion that are left; new ones are appended.
        additional: rows beside the features.
        source: n of them, where each picture came from.
        is_new: bool [n], pictures that the champion does not have, or not under this label.
        left_out: pictures by hash that take no part, and why.
        lost: holdout pictures of classes that the champion knows and the features do not.
        remarks: sentences on the data, without a full stop.
        quarantined: pictures in quarantine, unless known under another label.
        missing: numbers of them for training, by the class that they are read as.
    """

    features: Features
    additional: Additional | None
    source: tuple[str, ...]
    is_new: npt.NDArray[np.bool_]
    left_out: tuple[tuple[str, str], ...]
    lost: Features
    remarks: tuple[str, ...] = ()
    quarantined: QuarantinedRows = NO_QUARANTINED_ROWS
    missing: Mapping[str, int] = field(default_factory=dict)


def labels_in_force(old: Features, newer: Mapping[str, str], removed: Collection[str] = ()) -> dict[str, str]:
    """Return the label in force of each picture that was not removed."""
    labels = {sha256: label for sha256, label, _ in rows_of(old)} | dict(newer)
    return {sha256: label for sha256, label in sorted(labels.items()) if sha256 not in removed}


@dataclass(frozen=True)
class SettledRows:
    """Labelled pictures with their sides and classes."""

    rows: list[Row]
    sides: Sides
    classes: Classes

    @property
    def learned(self) -> list[Row]:
        """The rows of classes that take part."""
        return [row for row in self.rows if row[1] not in self.classes.left_out]

    @property
    def lost(self) -> list[Row]:
        """The holdout rows of the champion's classes that take no part."""
        return [row for row in self.rows if row[1] in self.classes.lost and row[2]]

    @property
    def left_out(self) -> Iterator[tuple[str, str]]:
        """Hashes of the pictures that take no part, and why."""
        for sha256, label, _ in self.rows:
            if label in self.classes.left_out:
                yield sha256, f"class {label!r} {self.classes.left_out[label]}"
        yield from ((sha256, BOTH_SIDES) for sha256 in sorted(self.sides.on_both))

    @property
    def remarks(self) -> Iterator[str]:
        """Sentences on classes left out, and on pictures that belong with both sides."""
        yield from self.classes.remarks
        if both := self.sides.on_both:
            yield (
                f"{len(both)} images belong with training and with holdout images, so they are neither trained on "
                f"nor judged by; the first is {min(both)}"
            )


def settle_rows(
    champion: Ground,
    model: str,
    embeddings: Mapping[str, FloatArray],
    labels: Mapping[str, str],
    stored: Mapping[str, bool],
    named: Mapping[str, Collection[str]],
) -> SettledRows:
    """Settle sides and classes of pictures, by the champion's embeddings of them.

    Its own pictures stay where they are. ``stored`` are sides that were decided for other versions, ``named`` as in
    `settle_sides`.

    Raises:
        PreconditionError: fewer than two classes are left, or an imported class has too few pictures.
    """
    old = champion.features
    fixed = {**stored, **dict(zip(old.sha256, map(bool, old.is_holdout), strict=True))}
    groups = dict(zip(old.sha256, old.group.tolist(), strict=True))
    pairs = _copies(champion, embeddings, labels) if embeddings.keys() - fixed.keys() else []
    sides = settle_sides(sorted(embeddings), pairs, fixed=fixed, groups=groups, named=named)
    if not champion.version:
        sides = leave_enough(sides, labels, FEWEST, fixed)
    rows = [(name, label, sides.is_holdout[name]) for name, label in labels.items() if name in sides.is_holdout]
    labelled = [(label, is_holdout) for _, label, is_holdout in rows]
    seen = {old.labels[index] for index in np.unique(old.label_index)}  # an imported classifier may know others
    kept = [label for label in old.labels if label not in champion.removed_labels]
    refuse_unseen(kept, seen, labelled, f"{model}:{champion.version}")
    classes = settle_classes(old.labels, labelled)
    return SettledRows(rows, sides, replace(classes, labels=in_order_of(champion.label_order, classes.labels)))


def _copies(champion: Ground, embeddings: Mapping[str, FloatArray], labels: Mapping[str, str]) -> list[Pair]:
    """Return pairs of pictures that are near copies within a class.

    Their class is what the champion answers, since a label may be wrong; but where the champion does not know the
    label, it is that, since what is new to the champion looks all alike to it.
    """
    names, before = sorted(embeddings), champion.features.labels
    vectors = np.array([embeddings[name] for name in names], np.float32)
    new = {label: len(before) + number for number, label in enumerate(sorted({*labels.values()} - {*before}))}
    answers = champion.probabilities(vectors).argmax(axis=1) if before else np.full(len(names), len(new))
    classes = np.array([new.get(labels.get(name, ""), answer) for name, answer in zip(names, answers, strict=True)])
    return [(names[first], names[second]) for first, second in near_copies(vectors, classes).tolist()]


def rows_of(features: Features) -> list[Row]:
    """Return the rows without their embeddings."""
    labels = [features.labels[index] for index in features.label_index]
    return list(zip(features.sha256, labels, [bool(is_holdout) for is_holdout in features.is_holdout], strict=True))


def embeddings_of(features: Features) -> dict[str, FloatArray]:
    """Return the embeddings by hash."""
    return dict(zip(features.sha256, features.embedding, strict=True))


def new_rows(before: Features, now: Features) -> npt.NDArray[np.bool_]:
    """Mark rows of ``now`` that ``before`` lacks under this label."""
    labels = {sha256: label for sha256, label, _ in rows_of(before)}
    return np.array([labels.get(sha256) != label for sha256, label, _ in rows_of(now)], np.bool_)


def gather(
    champion: Ground,
    examples: ExamplesStore,
    model: str,
    progress: Progress,
    wrong: Sequence[SuspectLabel] = (),
    *,
    only_look: bool = False,
) -> RetrainData:
    """Join the champion's pictures and the examples, embedding what is missing.

    Of a model without a version there are the examples alone.

    The sides of new pictures are kept for the retrains to come, whatever becomes of this one. The labels in ``wrong``
    went into quarantine just now. With ``only_look`` nothing is written, and nothing embedded: pictures without an
    embedding are left out.

    Raises:
        PreconditionError: fewer than two classes are left.
        StorageError: the examples cannot be read, or the sides not kept.
    """
    (sent, excluded), stored = learned_from(examples, model, champion), examples.split.sides(model)
    before = champion.features
    labels = labels_in_force(before, {example.sha256: example.label for example in sent}, excluded)
    files = {sha256: examples.image_file(sha256) for sha256 in labels}
    if only_look:
        embeddings = stored_embeddings(champion, files, examples)
        failures = {sha256: NOT_EMBEDDED for sha256 in files if sha256 not in embeddings}
    else:
        embeddings, failures = embed_missing(champion, files, examples, progress)
    unusable = [(_named(example), failures[example.sha256]) for example in sent if example.sha256 in failures]
    for name, reason in () if only_look else unusable:
        log.warning("example %s is left out: %s", name, reason)
    # What was held out and then removed still keeps its like out of training.
    every = embeddings | examples.embeddings.get(champion.key, excluded & stored.keys())
    named = {example.sha256: [example.group] for example in sent if example.group}
    try:
        settled = settle_rows(champion, model, every, labels, stored, named)
    except PreconditionError as error:
        if only_look and failures:
            raise PreconditionError(f"{error}; {len(failures)} labelled pictures are not embedded yet") from None
        raise
    features = assemble(
        settled.classes.labels,
        settled.learned,
        embeddings,
        groups=settled.sides.group,
        weights=dict(zip(before.sha256, before.weight.tolist(), strict=True)),
        sources=before.sources(),
    )
    if not only_look:
        sides = {name: is_holdout for name, _, is_holdout in rows_of(features) if name not in stored}
        examples.split.keep_sides(model, sides)
    quarantined = _quarantined_rows(champion, examples, model, features) if champion.version else NO_QUARANTINED_ROWS
    return RetrainData(
        features,
        _additional(champion, features, examples, progress, only_carried=only_look),
        sources_of(features, sent),
        new_rows(before, features),
        (*unusable, *settled.left_out),
        assemble(before.labels, settled.lost, embeddings),
        (*champion.remarks, *settled.remarks),
        quarantined,
        quarantined.missing(_read_as(champion, quarantined, wrong)) if quarantined.sha256 else {},
    )


def fit_on(ground: Ground, data: RetrainData, progress: Progress = silent) -> FittedHead:
    """Fit the head of a retrain, by the settings of its ground."""
    return refit(ground, data.features, data.additional, progress, missing=data.missing)


def _quarantined_rows(champion: Ground, examples: ExamplesStore, model: str, features: Features) -> QuarantinedRows:
    """Return the pictures in quarantine whose embeddings are at hand."""
    sides, learned = examples.split.sides(model), set(features.sha256)
    rows = [each for each in examples.labels.in_force(model, quarantined=True) if each.sha256 not in learned]
    embeddings = examples.embeddings.get(champion.key, [each.sha256 for each in rows])
    rows = [each for each in rows if each.sha256 in embeddings and each.sha256 in sides]
    if not rows:
        return NO_QUARANTINED_ROWS
    return QuarantinedRows(
        tuple(each.sha256 for each in rows),
        tuple(each.label for each in rows),
        tuple(each.source or UNKNOWN_SOURCE for each in rows),
        np.array([embeddings[each.sha256] for each in rows]),
        np.array([sides[each.sha256] for each in rows]),
    )


def _read_as(champion: Ground, quarantined: QuarantinedRows, wrong: Sequence[SuspectLabel]) -> Iterator[str]:
    """Yield the class that each picture in quarantine is read as.

    The champion reads them, which was not fitted on them; those found ``wrong`` just now, which it may have
    learned, are read as they were then.
    """
    answers_then = {entry.sha256: entry.answer for entry in wrong}
    size = champion.features.embedding.shape[1]
    answers = champion.probabilities(quarantined.embedding.reshape(-1, size)).argmax(axis=1)
    for sha256, answer in zip(quarantined.sha256, answers, strict=True):
        yield answers_then.get(sha256, champion.features.labels[answer])


def learned_from(examples: ExamplesStore, model: str, champion: Ground) -> tuple[list[Example], set[str]]:
    """Return the examples to learn from, and hashes of excluded pictures.

    Excluded are the ones that were removed, also with their label, and those that are known under a label that is in
    quarantine now. A picture that is known under another label keeps that one.
    """
    sent, labels = examples.labels.sent(model), {sha256: label for sha256, label, _ in rows_of(champion.features)}
    excluded = {
        example.sha256 for example in sent if example.quarantine and labels.get(example.sha256) == example.label
    }
    learned = [example for example in sent if not example.quarantine]
    excluded |= champion.removed - {example.sha256 for example in learned}
    return learned, excluded | examples.labels.removed(model)


def embed_missing(
    champion: Ground, files: Mapping[str, ImageFile], examples: ExamplesStore, progress: Progress
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Return embeddings by the champion's backbone, and failures, by hash.

    The examples take those that are made now.
    """
    embeddings = stored_embeddings(champion, files, examples)
    missing = {name: path for name, path in files.items() if name not in embeddings}
    failures: dict[str, str] = {}
    if missing:
        computed, failures = champion.embedder.embed(missing, examples.embeddings, progress)
        embeddings |= computed
    return embeddings, failures


def stored_embeddings(champion: Ground, names: Iterable[str], examples: ExamplesStore) -> dict[str, FloatArray]:
    """Return the embeddings at hand, by hash.

    They are the champion's own, and those made while serving.
    """
    own = embeddings_of(champion.features)
    return own | examples.embeddings.get(champion.key, [name for name in names if name not in own])


def _additional(
    champion: Ground, features: Features, examples: ExamplesStore, progress: Progress, *, only_carried: bool
) -> Additional | None:
    """Return the champion's additional rows, and views of new pictures.

    The views are left out with ``only_carried``.
    """
    if champion.additional is None:
        return None
    rows = champion.additional.carried_over(champion.features, features)
    if only_carried:
        return rows.in_order()
    settings = champion.settings
    views = int(settings.get("views", 0))
    train = features.train()
    bare = sorted(set(range(len(train.sha256))) - set(rows.parent.tolist()))
    files = {train.sha256[row]: examples.image_file(train.sha256[row]) for row in bare}
    files = {sha256: path for sha256, path in files.items() if path.exists()}
    if views and files:
        seed = champion.seed
        changes = augmentation_of(settings)
        fresh = embed_views(champion.embedder, features, files, views, seed, examples.embeddings, progress, changes)
        rows = rows.joined(fresh)
    return rows.in_order()


def _named(example: Example) -> str:
    """Describe an example by its hash, label and source."""
    return f"{example.sha256} ({example.label}, from {example.source or 'unknown'})"


def sources_of(features: Features, sent: list[Example]) -> tuple[str, ...]:
    """Return the source of each picture."""
    sources = features.sources() | {example.sha256: example.source or UNKNOWN_SOURCE for example in sent}
    return tuple(sources.get(sha256, FIRST_SOURCE) for sha256 in features.sha256)
