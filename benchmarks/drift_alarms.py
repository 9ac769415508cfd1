"""How often drift is called where there is none, and where there is some: of models that have few pictures.

``python -m benchmarks.drift_alarms DATA...``: on 90, 30 and 10 pictures a class of each folder a model is trained, for
each of thirty seeds. A window is drawn from the other pictures of these classes, which neither the head nor the card's
reference has seen, as many of each: as they are, and changed as in `benchmarks.drift`; and from the other folders.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.drift import CHANGES, WINDOW, changed
from regraft.files import cache_folder
from regraft.image.decode import decode_crop
from regraft.machine import cpu_budget
from regraft.model import artifact
from regraft.model.artifact import FloatArray
from regraft.model.drift import compare, figures_of, rows_of
from regraft.stores.backbones import DEFAULT_BACKBONE
from training.backbones.cache import load_backbone
from training.data.dataset import scan
from training.head.features import Embedder
from training.settings import TrainSettings
from training.train import train

SIZES: Final = (90, 30, 10)
SEEDS: Final = 30
KINDS: Final = ("as they are", "half as bright", "a quarter as bright", "blurred by 2 px", "blurred by 4 px")
SOMETHING_ELSE: Final = "of something else"
_FEWEST_LEFT: Final = 50
"""Pictures of a class that are not trained on; where there are fewer, the class is left out."""


@dataclass(frozen=True)
class Photographs:
    """A folder's pictures, each once, and the embeddings [n, D] of every kind."""

    name: str
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    embedding: dict[str, FloatArray]

    @staticmethod
    def embed(folder: Path, embedder: Embedder) -> "Photographs":
        """Read a folder, and embed all of it as it is and changed."""
        images = sorted(scan(folder).images, key=lambda image: image.sha256)
        files = tuple(image.path for image in images)

        def embedded(task: tuple[str, Path]) -> FloatArray:
            kind, path = task
            data = path.read_bytes() if kind == KINDS[0] else changed(path, CHANGES[kind])
            vector: FloatArray = embedder.run([decode_crop(data, embedder.spec)])[0]
            return vector

        with ThreadPoolExecutor(cpu_budget()) as pool:
            kinds = {kind: np.stack(list(pool.map(embedded, product([kind], files)))) for kind in KINDS}
        return Photographs(folder.name, files, tuple(image.label for image in images), kinds)

    def deal(self, size: int, seed: int) -> tuple[list[int], list[int]]:
        """Return rows to train on, so many of each class, and rows for a window; none where too few are left."""
        counts = Counter(self.labels)
        classes = [label for label in sorted(counts) if counts[label] >= size + _FEWEST_LEFT]
        if len(classes) < 2:
            return [], []
        share = min(WINDOW // len(classes), *(counts[label] - size for label in classes))
        rng = random.Random(seed)  # noqa: S311 - a seeded choice of test data
        learned, window = [], []
        for label in classes:
            rows = [row for row, other in enumerate(self.labels) if other == label]
            rng.shuffle(rows)
            learned += rows[:size]
            window += rows[size : size + share]
        return learned, window


def link(photographs: Photographs, rows: Iterable[int], folder: Path) -> Path:
    """Make a folder that `regraft train` takes of some of the pictures."""
    for row in rows:
        path = folder / photographs.labels[row] / f"{row}{photographs.files[row].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(photographs.files[row].resolve())
    return folder


def windows(
    photographs: Photographs, others: list[Photographs], rows: list[int], seed: int
) -> dict[str, list[FloatArray]]:
    """Return the embeddings of a window of each kind, and of one from each other folder."""
    rng = np.random.default_rng(seed)
    strangers = [rng.permutation(other.embedding[KINDS[0]])[: len(rows)] for other in others]
    return {**{kind: [photographs.embedding[kind][rows]] for kind in KINDS}, SOMETHING_ELSE: strangers}


def judge(photographs: Photographs, others: list[Photographs], size: int, scratch: Path) -> list[str] | None:
    """Train a model for each seed, and return a row of the table, or None where there are too few pictures."""
    called: dict[str, list[bool]] = {kind: [] for kind in (*KINDS, SOMETHING_ELSE)}
    references, largest = [], []
    for seed in range(SEEDS):
        learned, held = photographs.deal(size, seed)
        if not learned:
            return None
        name = f"{photographs.name}-{size}-{seed}"
        data = link(photographs, learned, scratch / "data" / name)
        found = artifact.read(train(TrainSettings(data, store=scratch / "models", seed=seed, tensorboard=False)).path)
        reference, head = found.card.reference, found.head
        if reference is None:
            return [photographs.name, str(size), "none"]
        references.append(f"{reference.images} {reference.source}")
        for kind, drawn in windows(photographs, others, held, seed).items():
            for window in drawn:
                answers = head.probabilities(window), head.novelty(window)
                shifts = compare(reference, figures_of(*answers, rows_of(reference, found.card.labels)))
                called[kind].append(any(shift.drifted for shift in shifts))
                if kind == KINDS[0]:
                    largest.append(max(shift.ks for shift in shifts))
    shares = [f"{np.mean(each):.0%}" if each else "" for each in called.values()]
    return [photographs.name, str(size), Counter(references).most_common(1)[0][0], f"{np.median(largest):.2f}", *shares]


def main() -> None:
    """Print the table: the share of windows that were called drifted."""
    backbone = load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())
    embedder = Embedder.of(backbone)
    sets = [Photographs.embed(Path(argument), embedder) for argument in sys.argv[1:]]
    columns = ("pictures a class", "reference", "largest KS", *KINDS, SOMETHING_ELSE)
    table = Table("photographs", *columns, title=f"called drifted; {SEEDS} seeds, windows of up to {WINDOW}")
    with tempfile.TemporaryDirectory() as scratch:
        for photographs in sets:
            others = [other for other in sets if other is not photographs]
            for size in SIZES:
                row = judge(photographs, others, size, Path(scratch))
                if row:
                    table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
