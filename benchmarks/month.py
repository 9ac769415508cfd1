"""A month of continuous learning: classes arrive one after the other, with a retrain after every batch.

Run it with ``python -m benchmarks.month FOLDER [PLOT.svg]``; the folder has ``train`` and ``val``, a folder in them for
each class. The first two classes are there from the start; the others come class by class, in batches. ``val`` is never
sent: every figure of the table is measured on it, of the classes that have come so far. At last a batch comes of which
a fifth bears a wrong label.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.datasets.labelled_files import find_in_folder
from regraft.files import cache_folder
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from training.head.features import Features, load_features
from training.retrain.job import run_job
from training.settings import TrainSettings
from training.train import train

BATCHES = 20
KEPT_BACK = 15
"""Pictures of each class that make the last batch."""
WRONG = 0.2
MODEL = "flowers"

Labelled = list[tuple[Path, str]]


@dataclass(frozen=True)
class Day:
    """What came of a batch; accuracies on ``val``, of the classes that have come so far."""

    batch: int
    label: str
    images: int
    job: RetrainJob
    accuracy: float
    recalls: dict[str, float]
    worst_loss: float


class Month:
    """A store with a model of the first two classes, which learns from batches."""

    def __init__(self, root: Path, start: Labelled, val: Features) -> None:
        """Train on ``start``."""
        self.store = ModelStore(root / "models")
        train_at_once(start, root, self.store)
        self.examples: ExamplesStore = open_examples(self.store.root)
        self.val = val
        self.days: list[Day] = []

    def send(self, batch: Labelled, name: str) -> RetrainJob:
        """Label a batch, and retrain."""
        for path, label in batch:
            self.examples.add(MODEL, path.read_bytes(), label, source=name)
        return run_job(self.store, self.examples, self.examples.jobs.create(MODEL, {}, "benchmarks.month").id)

    def live_through(self, batch: Labelled) -> Day:
        """Label a batch, retrain, and measure the champion."""
        number = len(self.days) + 1
        job = self.send(batch, f"batch {number}")
        accuracy, recalls = measured(self.store, self.val)
        before = self.days[-1].recalls if self.days else recalls
        lost = max((100 * (before[label] - recalls[label]) for label in before), default=0.0)
        self.days.append(Day(number, batch[0][1], len(batch), job, accuracy, recalls, lost))
        return self.days[-1]


def train_at_once(pictures: Labelled, root: Path, store: ModelStore) -> None:
    """Train a version on pictures, laid out in a folder of their own."""
    folder = root / f"{len(pictures)} pictures"
    for path, label in pictures:
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / path.name).symlink_to(path.resolve())
    train(TrainSettings(folder, name=MODEL, store=store.root, tensorboard=False), cache=cache_folder())


def measured(store: ModelStore, val: Features) -> tuple[float, dict[str, float]]:
    """Return accuracy and recalls of the champion on the pictures of ``val`` whose class it knows."""
    _, champion = store.find(MODEL)
    read = artifact.read(store.folder(MODEL, champion) / MODEL_FILE)
    known = np.array([val.labels[index] in read.card.labels for index in val.label_index])
    answers = read.head.probabilities(val.embedding[known]).argmax(axis=1)
    truth = np.array([read.card.labels.index(val.labels[index]) for index in val.label_index[known]])
    recalls = {label: float((answers[truth == row] == row).mean()) for row, label in enumerate(read.card.labels)}
    return float((answers == truth).mean()), recalls


def embedded_val(folder: Path, root: Path) -> Features:
    """Return the features of ``val`` through the default backbone."""
    store = ModelStore(root / "whole")
    train(TrainSettings(folder, name=MODEL, store=store.root, tensorboard=False), cache=cache_folder())
    return load_features(store.folder(MODEL, 1) / FEATURES_FILE).holdout()


def split(folder: Path) -> tuple[Labelled, list[Labelled], Labelled]:
    """Return what is there from the start, the batches, and the last batch with its right labels."""
    random = np.random.default_rng(0)
    by_label: dict[str, Labelled] = {}
    for path, label in find_in_folder(folder):
        by_label.setdefault(label, []).append((path, label))
    shuffled = {label: [pairs[row] for row in random.permutation(len(pairs))] for label, pairs in by_label.items()}
    last = [pair for pairs in shuffled.values() for pair in pairs[:KEPT_BACK]]
    labels = sorted(shuffled)
    start = [pair for label in labels[:2] for pair in shuffled[label][KEPT_BACK:]]
    coming = [pair for label in labels[2:] for pair in shuffled[label][KEPT_BACK:]]
    bounds: npt.NDArray[np.int64] = np.linspace(0, len(coming), BATCHES + 1).astype(np.int64)
    return start, [coming[low:high] for low, high in pairwise(bounds)], last


def mislabelled(batch: Labelled) -> tuple[Labelled, set[str]]:
    """Return a batch of which a fifth bears another label, and the hashes of those."""
    random = np.random.default_rng(1)
    labels = sorted({label for _, label in batch})
    wrong = {int(row) for row in random.permutation(len(batch))[: round(WRONG * len(batch))]}
    changed = [
        (path, str(random.choice([other for other in labels if other != label])) if row in wrong else label)
        for row, (path, label) in enumerate(batch)
    ]
    return changed, {image_hash(batch[row][0].read_bytes()) for row in wrong}


def tell(text: str) -> None:
    """Print a line."""
    print(text, flush=True)  # noqa: T201 - its output


def tell_day(day: Day) -> None:
    """Print a line of the table."""
    verdict = day.job.verdict or {}
    suspects = f"{verdict.get('suspects', 0)}/{verdict.get('new_images', 0)}"
    reason = "" if day.job.state is JobState.SUCCEEDED else f"   {day.job.message}"
    tell(
        f"{day.batch:>5}  {day.label:<11} {day.images:>6}  {day.job.state:<10} {suspects:>8}  {day.accuracy:>8.4f}  "
        f"{day.worst_loss:>10.1f}{reason}"
    )


def plot(days: Sequence[Day], at_once: float, path: Path) -> None:
    """Draw the accuracy and every class's recall by batch."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot is asked for

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "regraft"
    from matplotlib import pyplot  # noqa: PLC0415 - likewise

    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    for label in days[-1].recalls:
        seen = [day for day in days if label in day.recalls]
        axes.plot([day.batch for day in seen], [day.recalls[label] for day in seen], label=f"recall of {label}", lw=1.2)
    numbers = [day.batch for day in days]
    axes.plot(numbers, [day.accuracy for day in days], "k", lw=2.5, label="accuracy, classes so far")
    axes.axhline(at_once, color="k", ls=":", label="accuracy of training on everything at once")
    refused = [day for day in days if day.job.state is not JobState.SUCCEEDED]
    axes.plot(
        [day.batch for day in refused], [day.accuracy for day in refused], "rx", ms=9, label="refused by the gate"
    )
    axes.set(xlabel="batch", ylabel="on pictures that are never sent", xticks=numbers)
    axes.legend(loc="lower left", fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Live through the month, and print the table."""
    folder = Path(sys.argv[1])
    start, batches, last = split(folder / "train")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        val = embedded_val(folder, root)
        month = Month(root, start, val)
        tell(f"from the start: {len(start)} pictures of {start[0][1]} and {start[-1][1]}")
        tell("batch  class       images  job        suspects  accuracy  worst loss of a class, points")
        for batch in batches:
            tell_day(month.live_through(batch))
        whole = ModelStore(root / "at once")
        train_at_once([*start, *(pair for batch in batches for pair in batch)], root, whole)
        at_once, _ = measured(whole, val)
        final = month.days[-1].accuracy
        tell(f"accuracy on {len(val.sha256)} pictures of val: {final:.4f} after the month, {at_once:.4f} at once")
        if len(sys.argv) > 2:
            plot(month.days, at_once, Path(sys.argv[2]))
        tell_of_wrong_labels(month, last)
        month.examples.close()


def tell_of_wrong_labels(month: Month, last: Labelled) -> None:
    """Send the last batch, a fifth of it mislabelled, and print what came of it."""
    batch, planted = mislabelled(last)
    job = month.send(batch, "wrong labels")
    tell(f"a batch of {len(batch)} with {len(planted)} wrong labels: {job.state}: {job.message}")
    assert job.verdict is not None
    assert job.version is not None
    report = month.store.folder(MODEL, job.version) / "report.json"
    doubted = [entry["sha256"] for entry in json.loads(report.read_text())["findings"]["doubted"]]
    suspects = doubted[: job.verdict["suspects"]]
    tell(
        f"of the {len(planted)}, {len(planted & set(suspects))} are among the {len(suspects)} suspects, and "
        f"{len(planted & set(doubted))} among the {len(doubted)} new labels that the report shows"
    )


if __name__ == "__main__":
    main()
