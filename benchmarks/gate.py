"""Play retrains on right labels and on wrong ones, and print the gate's answers.

Hundreds of them, five seeds each, deterministic. ``python -m benchmarks.gate DATA [SCENARIO...]``, where DATA has the
folders that `SETS` names; without names all of `SCENARIOS` are played. ``--short`` in place of DATA plays less of each,
in seconds, on generated embeddings. Fits, quarantine and gate are those of ``training.retrain.job``, stores and files
are left out; embeddings are turned to `AXES` principal axes, on which heads are as good. Beside the labels that are
sent some pictures are kept apart: "clean" figures are of these.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.files import cache_folder
from regraft.label_rules import is_holdout
from regraft.model.artifact import FloatArray, Head
from regraft.stores.backbones import DEFAULT_BACKBONE
from regraft.stores.originals import FIRST_SOURCE
from training.backbones.cache import embedding_cache, load_backbone
from training.data.dataset import scan
from training.evaluation.calibration import squared_error
from training.gate.anchor import Anchor
from training.gate.verdict import Verdict
from training.head.features import Embedder, Features, assemble
from training.head.fit import FittedHead, fit
from training.retrain.data import NO_QUARANTINED_ROWS, QuarantinedRows, RetrainData, Row, new_rows
from training.retrain.evidence import Terms, answered_rightly, judge_challenger
from training.retrain.quarantine import LabelledRows, find_wrong_labels

AXES: Final = 256
CAMERA: Final = "camera"
MALLORY: Final = "Mallory"

_Labels = dict[str, str]


@dataclass(frozen=True)
class Set:
    """A set of photographs, and the sizes of its first training and batches.

    Attributes:
        start: pictures of the first training, of a run of few batches.
        batch: pictures of each.
        long: the same two, of a run of many batches; none where there are too few pictures.
        victim: the class whose pictures are called another, and that other one.
    """

    folder: str
    start: int
    batch: int
    long: tuple[int, int] = (0, 0)
    victim: tuple[str, str] = ("", "")


SETS: Final = (
    Set("flower_photos", 240, 48, (420, 90), ("roses", "tulips")),
    Set("neu_surface_defects", 120, 30, (180, 45), ("pitted_surface", "crazing")),
    Set("hymenoptera", 100, 24),
    Set("fruits4", 90, 20),
)
GENERATED: Final = Set("generated", 120, 30, (120, 30), ("class 0", "class 1"))


@dataclass(frozen=True)
class Extent:
    """The extent to which each scenario is played.

    Attributes:
        seeds: how often, each time with other pictures from the start.
        batches: of a run of few.
        long: of a run of many.
        poison: shares of a batch that are pictures of the victim under another label; the first is the run to compare
            with.
        noise: shares of a batch that bear labels drawn by lot.
        new: how many pictures of a new class come.
    """

    seeds: int
    batches: int
    long: int
    poison: tuple[float, ...]
    noise: tuple[float, ...]
    new: tuple[int, ...]


LONG: Final = Extent(5, 4, 12, (0.0, 0.02, 0.05, 0.08, 0.12), (0.02, 0.05, 0.1), (2, 5, 30))
SHORT: Final = Extent(1, 1, 3, (0.0, 0.1), (0.1,), (5,))


@dataclass(frozen=True)
class Photographs:
    """The pictures of a set by hash: labels, and embeddings."""

    of: Set
    label: _Labels
    embedding: dict[str, FloatArray]

    def shuffled(self, seed: int) -> list[str]:
        """Return all hashes in the order of a seed."""
        names = sorted(self.label)
        return [names[row] for row in np.random.default_rng(seed).permutation(len(names))]

    def right(self, names: Iterable[str]) -> _Labels:
        """Return the right labels of pictures."""
        return {name: self.label[name] for name in names}


def embed(data: Path, sets: Sequence[Set]) -> list[Photographs]:
    """Embed photographs through the default backbone, or read them from the cache."""
    backbone = load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())
    embedder = Embedder.of(backbone)
    found = []
    for each in sets:
        folder = data / each.folder
        images = scan(folder / "all" if (folder / "all").is_dir() else folder).images
        with embedding_cache(cache_folder()) as known:
            embeddings, _ = embedder.embed({image.sha256: image.path for image in images}, known)
        labels = {image.sha256: image.label for image in images if image.sha256 in embeddings}
        found.append(Photographs(each, labels, _on_axes(embeddings)))
    return found


def generate(of: Set, count: int = 400, classes: int = 4, size: int = 8) -> Photographs:
    """Draw embeddings round a centre for each class, which mostly tell them apart."""
    random = np.random.default_rng(0)
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    label = random.integers(classes, size=count)
    x = np.asarray(1.5 * random.normal(size=(classes, size))[label] + random.normal(size=(count, size)), np.float32)
    labels = {name: f"class {index}" for name, index in zip(names, label, strict=True)}
    return Photographs(of, labels, dict(zip(names, x, strict=True)))


def _on_axes(embeddings: dict[str, FloatArray]) -> dict[str, FloatArray]:
    names = sorted(embeddings)
    x = np.array([embeddings[name] for name in names])
    x -= x.mean(axis=0)
    axes = np.linalg.svd(x, full_matrices=False)[2][:AXES]
    return dict(zip(names, np.asarray(x @ axes.T, np.float32), strict=True))


@dataclass
class Model:
    """A model that is retrained without any store.

    Attributes:
        features: what the champion was fitted on.
        head: of the champion.
        sent: labels that were sent since the first training.
        source: where each came from.
        quarantine: pictures whose labels are left out.
        challenger: the head that was judged last, and its labels.
        anchor: what the best champions so far answered; None before the first retrain.
    """

    photographs: Photographs
    features: Features
    head: Head
    first: _Labels
    sent: _Labels = field(default_factory=dict)
    source: _Labels = field(default_factory=dict)
    quarantine: set[str] = field(default_factory=set)
    challenger: tuple[Head, tuple[str, ...]] | None = None
    anchor: Anchor | None = None

    @staticmethod
    def train(photographs: Photographs, names: Sequence[str]) -> "Model":
        """Train on pictures with their right labels."""
        first = photographs.right(names)
        rows = [(name, label, is_holdout(name)) for name, label in first.items()]
        features = assemble(tuple(sorted(set(first.values()))), rows, photographs.embedding)
        return Model(photographs, features, fit(features).head, first)

    def retrain(self, batch: _Labels, source: str | _Labels = CAMERA) -> Verdict:
        """Send labels, retrain, and promote the new head if the gate blesses it."""
        self.sent |= batch
        self.source |= dict.fromkeys(batch, source) if isinstance(source, str) else source
        data, fitted = self._fitted({})
        known = np.array([label in self.features.labels for label in data.features.labels])
        said = self.head.probabilities(data.features.embedding)
        labels = LabelledRows(
            data.features,
            data.source,
            np.array([name in self.sent for name in data.features.sha256]),
            data.is_new,
            known,
            data.quarantined,
        )
        found = find_wrong_labels(labels, np.pad(said, ((0, 0), (0, len(known) - said.shape[1]))), fitted)
        if found:
            self.quarantine |= {entry.sha256 for entry in found}
            data, fitted = self._fitted({entry.sha256: entry.answer for entry in found})
        before = self.head.probabilities(data.features.holdout().embedding)
        anchor = self._anchor().restricted_to(data.features)
        verdict = judge_challenger(self.features, before, data, fitted, Terms(anchor=anchor)).verdict
        assert verdict is not None  # it was judged just now
        self.challenger = fitted.head, data.features.labels
        if verdict.blessed:
            self.features, self.head = data.features, fitted.head
            self.anchor = anchor.updated(answered_rightly(anchor, data.features, fitted.head))
        return verdict

    def _aside(self) -> QuarantinedRows:
        names = sorted(self.quarantine)
        if not names:
            return NO_QUARANTINED_ROWS
        return QuarantinedRows(
            tuple(names),
            tuple(self.sent[name] for name in names),
            tuple(self.source[name] for name in names),
            np.array([self.photographs.embedding[name] for name in names]),
            np.array([is_holdout(name) for name in names]),
        )

    def _anchor(self) -> Anchor:
        if self.anchor:
            return self.anchor
        right = self.head.probabilities(self.features.embedding).argmax(axis=1) == self.features.label_index
        return Anchor.begin(self.features, right, np.isin(self.features.sha256, list(self.first)))

    def _fitted(self, found: _Labels) -> tuple[RetrainData, FittedHead]:
        known = self.first | {name: label for name, label in self.sent.items() if name not in self.quarantine}
        classes = (*self.features.labels, *sorted(set(known.values()) - set(self.features.labels)))
        rows: list[Row] = [(name, label, is_holdout(name)) for name, label in known.items()]
        features = assemble(classes, rows, self.photographs.embedding)
        source = tuple(self.source.get(name, FIRST_SOURCE) for name in features.sha256)
        lost = replace(features.select(np.zeros(len(source), np.bool_)), labels=self.features.labels)
        aside = self._aside()
        answers = self.head.probabilities(aside.embedding.reshape(-1, features.embedding.shape[1])).argmax(axis=1)
        read_as = (found.get(name, self.features.labels[row]) for name, row in zip(aside.sha256, answers, strict=True))
        missing = aside.missing(read_as)
        data = RetrainData(features, None, source, new_rows(self.features, features), (), lost, (), aside, missing)
        return data, fit(features, missing=missing)


@dataclass(frozen=True)
class Clean:
    """Pictures that are never sent."""

    truth: tuple[str, ...]
    embedding: FloatArray

    @staticmethod
    def of(photographs: Photographs, names: Sequence[str]) -> "Clean":
        """Keep pictures apart."""
        rows = np.array([photographs.embedding[name] for name in names])
        return Clean(tuple(photographs.label[name] for name in names), rows)

    def rights(self, head: Head, labels: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """Return which of them a head answers rightly."""
        answers = head.probabilities(self.embedding).argmax(axis=1)
        return np.array([labels[answer] == truth for answer, truth in zip(answers, self.truth, strict=True)])

    def recall(self, model: Model, label: str) -> float:
        """Return the recall of a class by the champion."""
        rights = self.rights(model.head, model.features.labels)
        return float(rights[np.array(self.truth) == label].mean())

    def error(self, head: Head, labels: tuple[str, ...]) -> float:
        """Return the squared calibration error, without bias."""
        index = np.array([labels.index(truth) for truth in self.truth])
        return squared_error(head.probabilities(self.embedding), index)


@dataclass
class Tally:
    """The outcome of some retrains; accuracies on clean pictures.

    Attributes:
        good: of the challengers, those that were as good on clean pictures as the champion.
        good_blessed: those of them that went live.
    """

    retrains: int = 0
    blessed: int = 0
    good: int = 0
    good_blessed: int = 0
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    quarantined: int = 0
    wrong: int = 0
    wrong_quarantined: int = 0

    def play(self, model: Model, clean: Clean, batches: Iterable[tuple[_Labels, str | _Labels]]) -> None:
        """Retrain on batch after batch."""
        self.before.append(float(clean.rights(model.head, model.features.labels).mean()))
        for batch, source in batches:
            champion = clean.rights(model.head, model.features.labels)
            blessed = model.retrain(batch, source).blessed
            assert model.challenger is not None  # it was made just now
            is_good = bool(clean.rights(*model.challenger).sum() >= champion.sum())
            self.retrains, self.blessed = self.retrains + 1, self.blessed + blessed
            self.good, self.good_blessed = self.good + is_good, self.good_blessed + (is_good and blessed)
        self.after.append(float(clean.rights(model.head, model.features.labels).mean()))
        wrong = {name for name, label in model.sent.items() if label != model.photographs.label[name]}
        self.quarantined += len(model.quarantine)
        self.wrong, self.wrong_quarantined = (
            self.wrong + len(wrong),
            self.wrong_quarantined + len(wrong & model.quarantine),
        )

    def cells(self) -> list[str]:
        """Return it as cells of a table."""
        return [
            f"{self.blessed} of {self.retrains}",
            f"{self.good_blessed} of {self.good}",
            f"{np.mean(self.before):.3f}",
            f"{np.mean(self.after):.3f}",
            f"{self.wrong_quarantined} of {self.wrong}",
            str(self.quarantined - self.wrong_quarantined),
        ]


COLUMNS: Final = (
    "photographs",
    "blessed",
    "blessed of those as good on clean pictures",
    "clean accuracy before",
    "after",
    "wrong labels in quarantine",
    "right ones",
)


def _cut(names: list[str], start: int, batch: int, count: int) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the first training set, batches, and the rest."""
    parts = [names[start + row * batch : start + (row + 1) * batch] for row in range(count)]
    return names[:start], parts, names[start + count * batch :]


def right_labels(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send further pictures drawn by lot, all labels right."""
    for photographs in sets:
        tally = Tally()
        for seed in range(extent.seeds):
            first, parts, rest = _cut(
                photographs.shuffled(seed), photographs.of.start, photographs.of.batch, extent.batches
            )
            model, clean = Model.train(photographs, first), Clean.of(photographs, rest)
            tally.play(model, clean, [(photographs.right(part), CAMERA) for part in parts])
        yield ["right labels", photographs.of.folder, *tally.cells()]


def corrections(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send right labels of the pictures that the model answers wrongly."""
    for photographs in sets:
        tally = Tally()
        for seed in range(extent.seeds):
            first, (seen,), rest = _cut(
                photographs.shuffled(seed),
                photographs.of.start,
                (len(photographs.label) - photographs.of.start) // 2,
                1,
            )
            model, clean = Model.train(photographs, first), Clean.of(photographs, rest)
            rights = Clean.of(photographs, seen).rights(model.head, model.features.labels)
            mistakes = [name for name, is_right in zip(seen, rights, strict=True) if not is_right]
            tally.play(model, clean, [(photographs.right(mistakes), "corrections")])
        yield ["corrections only", photographs.of.folder, *tally.cells()]


def noise(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send batches of which a share bears labels drawn by lot."""
    for photographs in sets[:1]:
        classes = sorted(set(photographs.label.values()))
        for rate in extent.noise:
            tally = Tally()
            for seed in range(extent.seeds):
                draw = np.random.default_rng(seed)
                first, parts, rest = _cut(
                    photographs.shuffled(seed), photographs.of.start, photographs.of.batch, extent.batches
                )
                batches: list[tuple[_Labels, str | _Labels]] = []
                for part in parts:
                    labels = photographs.right(part)
                    for name in part[: round(rate * len(part))]:
                        labels[name] = str(draw.choice([each for each in classes if each != labels[name]]))
                    batches.append((labels, CAMERA))
                tally.play(Model.train(photographs, first), Clean.of(photographs, rest), batches)
            yield [f"{rate:.0%} of labels wrong, by lot", photographs.of.folder, *tally.cells()]


def shift(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send batches that are mostly of one class."""
    for photographs in sets[:2]:
        tally = Tally()
        for seed in range(extent.seeds):
            first, (coming,), rest = _cut(
                photographs.shuffled(seed),
                photographs.of.start,
                (len(photographs.label) - photographs.of.start) // 2,
                1,
            )
            most = sorted(set(photographs.label.values()))[seed % 5]
            ordered = sorted(coming, key=lambda name: photographs.label[name] != most)
            batch = ordered[: 3 * photographs.of.batch]
            batches = [photographs.right(batch[row::3]) for row in range(3)]
            tally.play(
                Model.train(photographs, first), Clean.of(photographs, rest), [(each, CAMERA) for each in batches]
            )
        yield ["mostly one class", photographs.of.folder, *tally.cells()]


def two_sources(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send batches half of which come from Mallory, 8 % of them poison."""
    for photographs in sets[:2]:
        tally = Tally()
        victim, called = photographs.of.victim
        for seed in range(extent.seeds):
            first, parts, rest = _cut(
                photographs.shuffled(seed), photographs.of.start, 2 * photographs.of.batch, extent.batches
            )
            batches: list[tuple[_Labels, str | _Labels]] = []
            for part in parts:
                labels, half = photographs.right(part), part[: len(part) // 2]
                victims = [name for name in half if labels[name] == victim]
                labels |= dict.fromkeys(victims[: max(1, len(half) * 8 // 100)], called)
                batches.append((labels, {name: MALLORY if name in half else CAMERA for name in part}))
            tally.play(Model.train(photographs, first), Clean.of(photographs, rest), batches)
        yield ["two sources, one of them 8 % wrong", photographs.of.folder, *tally.cells()]


def new_class(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send a few pictures of a new class; calibration is that of the old."""
    for photographs in sets[:2]:
        new = photographs.of.victim[1]
        for count in extent.new:
            tally, before, after = Tally(), [], []
            for seed in range(extent.seeds):
                names = photographs.shuffled(seed)
                first, _, rest = _cut([n for n in names if photographs.label[n] != new], photographs.of.start, 0, 0)
                model, clean = Model.train(photographs, first), Clean.of(photographs, rest)
                before.append(clean.error(model.head, model.features.labels))
                # Two of them to train on, or there is no such class.
                coming = sorted((n for n in names if photographs.label[n] == new), key=is_holdout)[:2]
                coming += [n for n in names if photographs.label[n] == new and n not in coming][: count - 2]
                tally.play(model, clean, [(photographs.right(coming), CAMERA)])
                assert model.challenger is not None  # it was made just now
                after.append(clean.error(*model.challenger))
            errors = ", ".join(f"{np.sqrt(max(0.0, float(np.mean(each)))):.3f}" for each in (before, after))
            yield [f"{count} pictures of a new class; calibration {errors}", photographs.of.folder, *tally.cells()]


def poison(sets: Sequence[Photographs], extent: Extent) -> Iterator[list[str]]:
    """Send many batches in which some pictures of one class are called another."""
    for photographs in sets[:2]:
        victim, called = photographs.of.victim
        right: list[float] = []
        for rate in extent.poison:
            tally, recalls = Tally(), []
            for seed in range(extent.seeds):
                start, size = photographs.of.long
                first, parts, rest = _cut(photographs.shuffled(seed), start, size, extent.long)
                model, clean = Model.train(photographs, first), Clean.of(photographs, rest)
                batches: list[tuple[_Labels, str | _Labels]] = []
                for row, part in enumerate(parts):
                    labels, wrong = photographs.right(part), round(rate * size * (row + 1)) - round(rate * size * row)
                    victims = [name for name in part if labels[name] == victim][:wrong]
                    batches.append((labels | dict.fromkeys(victims, called), CAMERA))
                tally.play(model, clean, batches)
                recalls.append(clean.recall(model, victim))
            right = right or recalls
            drops = 100 * (np.array(right) - np.array(recalls))
            told = (
                f"{victim}: recall {np.mean(recalls):.3f}, {drops.mean():.1f} points less, worst seed {drops.max():.1f}"
            )
            yield [f"{rate:.0%} poison, {told}", photographs.of.folder, *tally.cells()]


SCENARIOS: Final[dict[str, Callable[[Sequence[Photographs], Extent], Iterator[list[str]]]]] = {
    "right": right_labels,
    "corrections": corrections,
    "new-class": new_class,
    "shift": shift,
    "noise": noise,
    "two-sources": two_sources,
    "poison": poison,
}


def tell(cells: Sequence[str]) -> None:
    """Print a line of the table."""
    print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201 - its output


def main(words: Sequence[str]) -> None:
    """Play the scenarios, and print the table."""
    if not words or set(words[1:]) - set(SCENARIOS):
        raise SystemExit(f"usage: python -m benchmarks.gate DATA|--short [{'|'.join(SCENARIOS)}]...")
    if words[0] == "--short":
        sets, extent = [generate(GENERATED)], SHORT
    else:
        sets, extent = embed(Path(words[0]), SETS), LONG
    wanted = words[1:] or list(SCENARIOS)
    tell(["sent", *COLUMNS])
    tell(["---"] * (len(COLUMNS) + 1))
    for name in wanted:
        for row in SCENARIOS[name](sets, extent):
            tell(row)


if __name__ == "__main__":
    main(sys.argv[1:])
