"""Coverage and width of the learning curve's forecasts.

    python -m benchmarks.learning_curve DATA [SEEDS] [SET...]

DATA has the folders that `benchmarks.gate.SETS` names; all are played unless some are named. Each seed draws an order
of labelling for every set; at 100, 200 and 400 labels a curve is made, and its forecast for 100 more is held against
the curve that is made then. One in five pictures is held out, as in production. The last columns are about all pictures
that nobody labelled: the accuracy that a fitted head gained on them, beside the gain that was forecast, and how often
the interval of the gain holds it.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.gate import SETS, Photographs, embed
from regraft.label_rules import is_holdout
from training.evaluation.curve.curve import learning_curve
from training.evaluation.findings import Forecast, LearningCurve
from training.head.features import Features, assemble
from training.head.fit import fit

MADE_AT: Final = (100, 200, 400)
MORE: Final = 100
_UNSEEN: Final = 60
"""Pictures beyond the labelled ones that a run takes at least; without them its set is too small."""
_LINE: Final = "{:22} {:>6} {:>5} {:>8} {:>7} {:>14} {:>14} {:>8}\n"


@dataclass(frozen=True)
class Made:
    """A curve, and a head's accuracy on pictures that nobody labelled."""

    curve: LearningCurve
    unseen: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A forecast and its outcome, on labelled and on unseen pictures."""

    name: str
    at: int
    forecast: Forecast
    then: float
    now: float
    unseen_gain: float

    @property
    def covered(self) -> bool:
        """True where the interval holds the measured accuracy."""
        return self.forecast.interval[0] <= self.then <= self.forecast.interval[1]

    def line(self) -> str:
        """Return the run in a line."""
        low, high = self.forecast.interval
        return (
            f"{self.name} {self.at} labels: {self.now:.4f}, forecast {self.forecast.accuracy:.4f} ({low:.4f} to "
            f"{high:.4f}), then {self.then:.4f}{'' if self.covered else ' OUTSIDE'}; unseen {self.unseen_gain:+.4f}\n"
        )

    @property
    def unseen_covered(self) -> bool:
        """True where the gain's interval holds that on unseen pictures."""
        low, high = (end - self.now for end in self.forecast.interval)
        return low <= self.unseen_gain <= high


def main(data: str, seeds: str = "20", *names: str) -> None:
    """Play and print all runs, then their means.

    A line for each set and number of labels.
    """
    runs: list[Run] = []
    seconds: list[float] = []
    for photographs in embed(Path(data), [each for each in SETS if each.folder in names or not names]):
        for seed in range(int(seeds)):
            for run in _played(photographs, seed, seconds):
                runs.append(run)
                sys.stdout.write(run.line())
                sys.stdout.flush()
    sys.stdout.write(
        _LINE.format("set", "labels", "runs", "covered", "width", "gain forecast", "gain unseen", "covered")
    )
    for name in [*dict.fromkeys(run.name for run in runs), ""]:
        for at in MADE_AT:
            sys.stdout.write(
                _summary(name or "all", at, [run for run in runs if run.at == at and name in ("", run.name)])
            )
    slowest = max(seconds)
    sys.stdout.write(f"{len(seconds)} curves, median {np.median(seconds):.2f} s, the slowest {slowest:.2f} s\n")


def _played(photographs: Photographs, seed: int, seconds: list[float]) -> Iterator[Run]:
    """Yield the runs of a seed."""
    order = photographs.shuffled(seed)
    made: dict[int, Made] = {}
    for at in sorted({*MADE_AT, *(at + MORE for at in MADE_AT)}):
        if at + _UNSEEN <= len(order):
            made[at] = _made(photographs, order, at)
            seconds.append(made[at].seconds)
    for at in MADE_AT:
        if at + MORE in made:
            before, after = made[at], made[at + MORE]
            forecast = next(each for each in before.curve.forecasts if each.more == MORE)
            now, then = (each.curve.points[-1].accuracy for each in (before, after))
            yield Run(photographs.of.folder, at, forecast, then, now, after.unseen - before.unseen)


def _made(photographs: Photographs, order: list[str], labels: int) -> Made:
    """Make the curve of the first labels, and measure on all others."""
    features, others = _features(photographs, order[:labels]), _features(photographs, order[labels:])
    fitted = fit(features)
    began_s = time.perf_counter()
    curve = learning_curve(features, fitted.choices["c"])
    seconds = time.perf_counter() - began_s
    right = fitted.head.probabilities(others.embedding).argmax(axis=1) == others.label_index
    return Made(curve, float(right.mean()), seconds)


def _features(photographs: Photographs, names: list[str]) -> Features:
    rows = [(name, photographs.label[name], is_holdout(name)) for name in names]
    return assemble(tuple(sorted(set(photographs.label.values()))), rows, photographs.embedding)


def _summary(name: str, at: int, runs: list[Run]) -> str:
    if not runs:
        return _LINE.format(name, at, 0, "-", "-", "-", "-", "-")
    widths = [run.forecast.interval[1] - run.forecast.interval[0] for run in runs]
    return _LINE.format(
        name,
        at,
        len(runs),
        f"{np.mean([run.covered for run in runs]):.0%}",
        f"{100 * np.mean(widths):.1f}",
        f"{100 * np.mean([run.forecast.gain for run in runs]):+.2f}",
        f"{100 * np.mean([run.unseen_gain for run in runs]):+.2f}",
        f"{np.mean([run.unseen_covered for run in runs]):.0%}",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
