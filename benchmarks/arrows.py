"""Arrows to the left and to the right, which no strategy may mirror: each against the probe, five seeds.

Run it with ``python -m benchmarks.arrows [ARROWS [SEEDS]]``: so many to train on of each direction, else 60.
Each seed draws arrows of its own, 400 of them to hold out.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from regraft.files import cache_folder
from tests.arrows import arrows
from training.settings import TrainSettings
from training.train import train

STRATEGIES: dict[str, dict[str, Any]] = {
    "probe": {},
    "probe, two views": {"views": 2},
    "finetune": {"strategy": "finetune"},
    "auto": {"strategy": "auto"},
    "scratch": {"strategy": "scratch"},
    "probe, two views, mirrored": {"views": 2, "mirror": True},
    "finetune, mirrored": {"strategy": "finetune", "mirror": True},
}
HELD = 200
IMAGE_PX = 96


def accuracies(folder: Path, count: int, seed: int) -> dict[str, float]:
    """Return the holdout accuracy of every strategy on arrows of this seed."""
    first = 10_000 * seed
    data = folder / f"arrows{seed}"
    arrows(data / "train", count, first)
    arrows(data / "val", HELD, first + count)
    found = {}
    for name, settings in STRATEGIES.items():
        given = TrainSettings(
            data, store=folder / "models", image_px=IMAGE_PX, seed=seed, tensorboard=False, **settings
        )
        result = train(given, cache=cache_folder())
        assert result.card.metrics is not None
        found[name] = result.card.metrics.accuracy
        print(f"seed {seed}: {name} {found[name]:.3f}", file=sys.stderr, flush=True)  # noqa: T201 - how far it is
    return found


def main() -> None:
    """Print a line for each strategy."""
    count, seeds = (int(given) for given in [*sys.argv[1:], *("60", "5")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as scratch:
        found = [accuracies(Path(scratch), count, seed) for seed in range(seeds)]
    print(f"{2 * count} training arrows, {2 * HELD} held out, {seeds} seeds, {IMAGE_PX} px")  # noqa: T201 - its output
    for name in STRATEGIES:
        each = np.array([accuracy[name] for accuracy in found])
        gain = each - np.array([accuracy["probe"] for accuracy in found])
        error = gain.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
        print(  # noqa: T201 - likewise
            f"{name:28}{each.mean():.3f}  ({each.min():.3f} to {each.max():.3f})  "
            f"against the probe {gain.mean():+.3f}, standard error {error:.3f}"
        )


if __name__ == "__main__":
    main()
