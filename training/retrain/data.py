"""What a retrain learns from: the champion's own features, and the examples that people labelled since. No torch."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray
from regraft.progress import Progress
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import ImageFile
from regraft.stores.labels import Example
from training.gate.verdict import SuspectLabel
from training.head.additional import Additional
from training.head.features import Features, assemble
from training.head.views import augmentation_of, embed_views
from training.retrain.classes import Classes, refuse_unseen, settle_classes
from training.retrain.near_copies import near_copies
from training.retrain.sides import BOTH_SIDES, Pair, Sides, settle_sides
from training.versions.read import StoredVersion

FIRST_SOURCE: Final = "first training data"
"""What the gate calls the source of pictures that no example tells of."""
UNKNOWN_SOURCE: Final = "unknown"

log = logging.getLogger("regraft.retrain")

Row = tuple[str, str, bool]
"""Image hash, label, whether it is holdout."""


@dataclass(frozen=True)
class Aside:
    """Pictures in quarantine, m of them, that nothing is fitted on.

    Attributes:
        sha256: their hashes.
        label: what they were called.
        source: where each came from.
        embedding: float32 [m, D].
        is_holdout: bool [m], what they would be.
    """

    sha256: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    embedding: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    is_holdout: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def missing(self, read_as: Iterable[str]) -> dict[str, int]:
        """Count those for training by the class that each is read as."""
        return dict(Counter(label for label, held in zip(read_as, self.is_holdout, strict=True) if not held))


NOTHING_ASIDE: Final = Aside()


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
        remarks: what people are told of the data, sentences without a full stop.
        aside: pictures in quarantine, but for those that are known under another label.
        missing: how many of them are for training, by the class that they are read as.
    """

    features: Features
    additional: Additional | None
    source: tuple[str, ...]
    is_new: npt.NDArray[np.bool_]
    left_out: tuple[tuple[str, str], ...]
    lost: Features
    remarks: tuple[str, ...] = ()
    aside: Aside = NOTHING_ASIDE
    missing: Mapping[str, int] = field(default_factory=dict)


def labels_in_force(old: Features, newer: Mapping[str, str], removed: Collection[str] = ()) -> dict[str, str]:
    """Return the label of every picture: of a version's own, and of those labelled since, without the removed ones."""
    labels = {sha256: label for sha256, label, _ in rows_of(old)} | dict(newer)
    return {sha256: label for sha256, label in sorted(labels.items()) if sha256 not in removed}


def sides_of(
    champion: StoredVersion,
    embeddings: Mapping[str, FloatArray],
    labels: Mapping[str, str],
    kept: Mapping[str, bool],
    named: Mapping[str, Collection[str]],
) -> Sides:
    """Bring pictures to the side of those that they belong with, by what the champion sees in them.

    Args:
        champion: whose own pictures stay where they are.
        embeddings: of its backbone, of all pictures.
        labels: in force.
        kept: sides that were decided for other versions.
        named: see `settle_sides`.
    """
    old = champion.features
    fixed = {**kept, **dict(zip(old.sha256, map(bool, old.is_holdout), strict=True))}
    groups = dict(zip(old.sha256, old.group.tolist(), strict=True))
    pairs = _copies(champion, embeddings, labels) if embeddings.keys() - fixed.keys() else []
    return settle_sides(sorted(embeddings), pairs, fixed=fixed, groups=groups, named=named)


def _copies(champion: StoredVersion, embeddings: Mapping[str, FloatArray], labels: Mapping[str, str]) -> list[Pair]:
    """Return pairs of pictures that look nearly alike beside others of their class.

    Their class is what the champion answers, since a label may be wrong; but where the champion does not know the
    label, it is that, since what is new to the champion looks all alike to it.
    """
    names, known = sorted(embeddings), champion.features.labels
    vectors = np.array([embeddings[name] for name in names], np.float32)
    answers = champion.probabilities(vectors).argmax(axis=1)
    new = {label: len(known) + number for number, label in enumerate(sorted({*labels.values()} - {*known}))}
    classes = np.array([new.get(labels.get(name, ""), answer) for name, answer in zip(names, answers, strict=True)])
    return [(names[first], names[second]) for first, second in near_copies(vectors, classes).tolist()]


def rows_of(features: Features) -> list[Row]:
    """Return the rows without their embeddings."""
    labels = [features.labels[index] for index in features.label_index]
    return list(zip(features.sha256, labels, [bool(held) for held in features.is_holdout], strict=True))


def seen_labels(features: Features) -> set[str]:
    """Return the labels that there are pictures of; an imported classifier may know others."""
    return {features.labels[index] for index in np.unique(features.label_index)}


def new_rows(before: Features, now: Features) -> npt.NDArray[np.bool_]:
    """Return for each row of ``now`` whether it is not in ``before``, or not under this label."""
    known = {sha256: label for sha256, label, _ in rows_of(before)}
    return np.array([known.get(sha256) != label for sha256, label, _ in rows_of(now)], np.bool_)


def gather(
    champion: StoredVersion,
    examples: ExamplesStore,
    model: str,
    progress: Progress,
    wrong: Sequence[SuspectLabel] = (),
) -> RetrainData:
    """Put together the version's own embeddings, those cached while serving, and what is still missing.

    The sides of new pictures are kept for the retrains to come, whatever becomes of this one.

    Args:
        champion: has its own embeddings.
        examples: have all others, or their pictures.
        model: its name.
        progress: told the stage ``embed``.
        wrong: labels that went into quarantine just now.

    Raises:
        PreconditionError: fewer than two classes are left.
        StorageError: the examples cannot be read, or the sides not kept.
    """
    (sent, aside), kept = learned_from(examples, model, champion.features), examples.labels.sides(model)
    before = champion.features
    labels = labels_in_force(before, {example.sha256: example.label for example in sent}, aside)
    files = {sha256: examples.image_file(sha256) for sha256 in labels}
    embeddings, failures = embed_missing(champion, files, examples, progress)
    unreadable = [(_named(example), failures[example.sha256]) for example in sent if example.sha256 in failures]
    for name, reason in unreadable:
        log.warning("example %s is left out: %s", name, reason)
    # What was held out and then removed still keeps its like out of training.
    every = embeddings | examples.embeddings.get(champion.key, aside & kept.keys())
    named = {example.sha256: [example.group] for example in sent if example.group}
    sides = sides_of(champion, every, labels, kept, named)
    rows = [(name, label, sides.held[name]) for name, label in labels.items() if name in sides.held]
    labelled = [(label, held) for _, label, held in rows]
    refuse_unseen(before.labels, seen_labels(before), labelled, f"{model}:{champion.version}")
    classes = settle_classes(before.labels, labelled)
    features = assemble(
        classes.labels,
        [row for row in rows if row[1] not in classes.left_out],
        embeddings,
        groups=sides.group,
        weights=dict(zip(before.sha256, before.weight.tolist(), strict=True)),
        sources=before.sources(),
    )
    examples.labels.keep_sides(model, {sha256: held for sha256, _, held in rows_of(features) if sha256 not in kept})
    waiting = _aside(champion, examples, model, features)
    return RetrainData(
        features,
        _additional(champion, features, examples, progress),
        sources_of(features, sent),
        new_rows(before, features),
        (*unreadable, *left_out_with(classes, rows), *((name, BOTH_SIDES) for name in sorted(sides.both))),
        assemble(before.labels, [row for row in rows if row[1] in classes.lost and row[2]], embeddings),
        (*classes.remarks, *remarks_on(sides)),
        waiting,
        waiting.missing(_read_as(champion, waiting, wrong)),
    )


def _aside(champion: StoredVersion, examples: ExamplesStore, model: str, features: Features) -> Aside:
    """Return the pictures in quarantine whose embeddings are at hand."""
    held, learned = examples.labels.sides(model), set(features.sha256)
    listed = [each for each in examples.labels.in_force(model, quarantined=True) if each.sha256 not in learned]
    known = examples.embeddings.get(champion.key, [each.sha256 for each in listed])
    listed = [each for each in listed if each.sha256 in known and each.sha256 in held]
    if not listed:
        return NOTHING_ASIDE
    return Aside(
        tuple(each.sha256 for each in listed),
        tuple(each.label for each in listed),
        tuple(each.source or UNKNOWN_SOURCE for each in listed),
        np.array([known[each.sha256] for each in listed]),
        np.array([held[each.sha256] for each in listed]),
    )


def _read_as(champion: StoredVersion, aside: Aside, wrong: Sequence[SuspectLabel]) -> Iterator[str]:
    """Yield the class that each picture in quarantine is read as.

    The champion reads them, which was not fitted on them; those that are found ``wrong`` just now, which it may have
    learned, are read as they were then.
    """
    found = {entry.sha256: entry.answer for entry in wrong}
    size = champion.features.embedding.shape[1]
    answers = champion.probabilities(aside.embedding.reshape(-1, size)).argmax(axis=1)
    for sha256, answer in zip(aside.sha256, answers, strict=True):
        yield found.get(sha256, champion.features.labels[answer])


def remarks_on(sides: Sides) -> Iterator[str]:
    """Yield what is to be said of pictures that belong with both sides."""
    if sides.both:
        yield (
            f"{len(sides.both)} images belong with training and with holdout images, so they are neither trained on "
            f"nor judged by; the first is {min(sides.both)}"
        )


def learned_from(examples: ExamplesStore, model: str, known: Features) -> tuple[list[Example], set[str]]:
    """Return the examples to learn from, and the hashes of pictures that must not be learned from any more.

    These are the ones that were removed, and those that are known under a label that is in quarantine now. A picture
    that is known under another label keeps that one.
    """
    sent, labels = examples.labels.in_force(model), {sha256: label for sha256, label, _ in rows_of(known)}
    aside = {example.sha256 for example in sent if example.quarantine and labels.get(example.sha256) == example.label}
    return [example for example in sent if not example.quarantine], aside | examples.labels.removed(model)


def left_out_with(classes: Classes, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Yield the pictures, by hash, whose classes take no part, and why."""
    for sha256, label, _ in rows:
        if label in classes.left_out:
            yield sha256, f"class {label!r} {classes.left_out[label]}"


def embed_missing(
    champion: StoredVersion, files: Mapping[str, ImageFile], examples: ExamplesStore, progress: Progress
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Return what the champion's backbone makes of its own pictures and of others, and why there is none of some.

    Args:
        champion: has the embeddings of its own.
        files: by image hash.
        examples: has those that were made while serving, and takes the others.
        progress: told the stage ``embed``.
    """
    known = dict(zip(champion.features.sha256, champion.features.embedding, strict=True))
    wanted = {name: file for name, file in files.items() if name not in known}
    fresh = examples.embeddings.get(champion.key, wanted)
    missing = {name: path for name, path in wanted.items() if name not in fresh}
    failures: dict[str, str] = {}
    if missing:
        computed, failures = champion.embedder.embed(missing, examples.embeddings, progress)
        fresh |= computed
    return known | fresh, failures


def _additional(
    champion: StoredVersion, features: Features, examples: ExamplesStore, progress: Progress
) -> Additional | None:
    """Return the rows beside the features: the champion's, and as many views of each picture that is new."""
    if champion.additional is None:
        return None
    carried = champion.additional.carried_over(champion.features, features)
    settings = champion.artifact.card.settings
    views = int(settings.get("views", 0))
    train = features.train()
    bare = sorted(set(range(len(train.sha256))) - set(carried.parent.tolist()))
    files = {train.sha256[row]: examples.image_file(train.sha256[row]) for row in bare}
    files = {sha256: path for sha256, path in files.items() if path.exists()}
    if views and files:
        seed = champion.artifact.card.seed
        changes = augmentation_of(settings)
        fresh = embed_views(champion.embedder, features, files, views, seed, examples.embeddings, progress, changes)
        carried = carried.joined(fresh)
    return carried.in_order()


def _named(example: Example) -> str:
    """Return what people know an example by: its hash, its label and where it came from."""
    return f"{example.sha256} ({example.label}, from {example.source or 'unknown'})"


def sources_of(features: Features, sent: list[Example]) -> tuple[str, ...]:
    """Return where each picture came from."""
    told = features.sources() | {example.sha256: example.source or UNKNOWN_SOURCE for example in sent}
    return tuple(told.get(sha256, FIRST_SOURCE) for sha256 in features.sha256)
