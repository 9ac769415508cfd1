"""Accuracy against labels that `suggest` asks for, or at random.

``python -m benchmarks.suggestions DATA [PLOT.png] [CHOOSER...]``; DATA has flower_photos and neu_surface_defects. All
pictures but a quarter of each class, drawn anew for every seed, lie in a pool without labels. Round after round the
labels of `BATCH` pictures are bought and a head is fitted on all labels so far; a class of a single picture waits.
Accuracy is measured on the quarter, which nobody chooses from. Embeddings are those of `benchmarks.gate`, turned to 256
principal axes. Without names all of `CHOOSERS` are played.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks import choosers
from benchmarks.choosers import Chooser, Learned, Pool
from benchmarks.gate import SETS, Photographs, embed
from regraft.model.artifact import FloatArray

SEEDS: Final = 5
BATCH: Final = 20
ROUNDS: Final = 15
TARGET: Final = 300
"""Labels whose accuracy, at random, is to be reached with fewer."""
SHOWN: Final = (20, 40, 60, 80, 100, 140, 200, 240, 300)
CHOOSERS: Final[dict[str, Chooser]] = {
    "at random": choosers.at_random,
    "suggest": choosers.suggested,
    "margin": choosers.least_margin,
    "dropout margin": choosers.dropout_margin,
    "k-centre": choosers.k_centre,
    "TypiClust": choosers.typiclust,
    "BADGE-like": choosers.badge_like,
}
_COLOURS: Final = ("#5d6778", "#2f6fde", "#c8551b", "#0d8a72", "#8a5cd1", "#b58900", "#d33682")
_FEWEST: Final = 2
"""Pictures of a class, and classes, that a fit needs."""

_Curves = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A pool, and pictures to be judged by.

    Attributes:
        names: n hashes of the pool.
        label: of all pictures, by hash.
        embedding: float32 [n, D].
        judged: float32 [m, D].
        truth: m labels.
    """

    names: list[str]
    label: dict[str, str]
    embedding: FloatArray
    judged: FloatArray
    truth: list[str]

    @staticmethod
    def of(photographs: Photographs, seed: int) -> "Problem":
        """Draw a quarter of each class to be judged by."""
        order = photographs.shuffled(seed)
        judged: set[str] = set()
        for label in sorted(set(photographs.label.values())):
            of_label = [name for name in order if photographs.label[name] == label]
            judged.update(of_label[: len(of_label) // 4])
        pool = [name for name in order if name not in judged]
        kept = sorted(judged)
        return Problem(
            pool,
            photographs.label,
            np.array([photographs.embedding[name] for name in pool]),
            np.array([photographs.embedding[name] for name in kept]),
            [photographs.label[name] for name in kept],
        )

    def learn(self, rows: Sequence[int]) -> Learned | None:
        """Fit a head on labelled rows; None with fewer than two classes."""
        given = [self.label[self.names[row]] for row in rows]
        counts = {label: given.count(label) for label in sorted(set(given))}
        labels = tuple(label for label, count in counts.items() if count >= _FEWEST)
        if len(labels) < _FEWEST:
            return None
        taken = [(row, labels.index(label)) for row, label in zip(rows, given, strict=True) if label in labels]
        return Learned(
            labels,
            counts,
            self.embedding[[row for row, _ in taken]],
            np.array([index for _, index in taken], np.int64),
        )

    def accuracy(self, learned: Learned | None) -> float:
        """Measure a head on the pictures to be judged by."""
        if learned is None:
            return 0.0
        answers = learned.probabilities(self.judged).argmax(axis=1)
        right = [learned.labels[answer] == truth for answer, truth in zip(answers, self.truth, strict=True)]
        return float(np.mean(right))


def play(problem: Problem, choose: Chooser, seed: int) -> list[float]:
    """Buy labels, batch after batch; return the accuracy after each."""
    pool = Pool(problem.embedding, np.random.default_rng(seed))
    curve = []
    for _ in range(ROUNDS):
        rows = choose(pool, BATCH)
        assert len(np.unique(rows)) == len(rows) <= BATCH
        assert not pool.labelled[rows].any()
        pool.labelled[rows] = True
        pool.learned = problem.learn(np.flatnonzero(pool.labelled).tolist())
        curve.append(problem.accuracy(pool.learned))
    return curve


def labels_to_reach(curve: npt.NDArray[np.float64], accuracy: float) -> int | None:
    """Return the labels with which a curve first reaches an accuracy."""
    reached = np.flatnonzero(curve >= accuracy)
    return BATCH * (int(reached[0]) + 1) if len(reached) else None


def table_of(name: str, curves: dict[str, _Curves]) -> Table:
    """Return the accuracies by labels, mean and standard deviation over seeds."""
    aim = curves["at random"].mean(axis=0)[TARGET // BATCH - 1]
    columns = (*(str(number) for number in SHOWN), f"labels to {100 * aim:.1f} %", "worst against random")
    table = Table("chosen", *columns, title=f"{name}, {SEEDS} seeds: accuracy in % after so many labels")
    for chooser, of in curves.items():
        places = [number // BATCH - 1 for number in SHOWN]
        cells = [f"{100 * of[:, at].mean():.1f} ± {100 * of[:, at].std(ddof=1):.1f}" for at in places]
        behind = 100 * (of - curves["at random"]).mean(axis=0).min()
        table.add_row(chooser, *cells, str(labels_to_reach(of.mean(axis=0), aim) or "more"), f"{behind:+.1f}")
    return table


def plot(found: dict[str, dict[str, _Curves]], path: Path) -> None:
    """Draw accuracy against labels.

    A band of one standard deviation is around random and suggest.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot is asked for

    mpl.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415 - likewise

    figure, rooms = pyplot.subplots(1, len(found), figsize=(11, 4.2))
    numbers = BATCH * np.arange(1, ROUNDS + 1)
    for axes, (name, curves) in zip(np.atleast_1d(rooms), found.items(), strict=True):
        for colour, (chooser, of) in zip(_COLOURS, curves.items(), strict=False):
            is_main = chooser in ("at random", "suggest")
            mean, spread = 100 * of.mean(axis=0), 100 * of.std(axis=0, ddof=1)
            axes.plot(numbers, mean, color=colour, lw=2.4 if is_main else 1, label=chooser, zorder=3 if is_main else 2)
            if is_main:
                axes.fill_between(numbers, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
        aim = 100 * curves["at random"].mean(axis=0)[TARGET // BATCH - 1]
        axes.axhline(aim, color="#1b2330", ls=":", lw=1, label=f"random with {TARGET} labels")
        best = max(100 * of.mean(axis=0).max() for of in curves.values())
        axes.set(title=name, xlabel="labels", ylabel="accuracy, %", ylim=(best - 30, best + 1.5))
        axes.grid(color="#dfe3ea")
        axes.spines[["top", "right"]].set_visible(False)
    rooms[0].legend(loc="lower right", fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Play every chooser on both sets, and print the tables."""
    arguments = sys.argv[2:]
    picture = next((Path(each) for each in arguments if each.endswith(".png")), None)
    names = [each for each in arguments if each in CHOOSERS] or list(CHOOSERS)
    console = Console(width=160)
    found: dict[str, dict[str, _Curves]] = {}
    for photographs in embed(Path(sys.argv[1]), SETS[:2]):
        problems = [Problem.of(photographs, seed) for seed in range(SEEDS)]
        curves = found[photographs.of.folder] = {}
        for name in dict.fromkeys(["at random", *names]):
            began_s = time.perf_counter()
            curves[name] = np.array([play(each, CHOOSERS[name], seed) for seed, each in enumerate(problems)])
            console.print(f"{photographs.of.folder}, {name}: {time.perf_counter() - began_s:.0f} s")
        console.print(table_of(photographs.of.folder, curves))
    if picture:
        plot(found, picture)


if __name__ == "__main__":
    main()
