"""What abstention promises and keeps: the share answered and the error of held-out pictures, over splits at random.

Run it with ``python -m benchmarks.abstention FOLDER...``; each folder is one that ``regraft train`` takes. A split is
kept where, of the answers given on the fifth that was held out, no larger share than the target is wrong.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from regraft.files import cache_folder
from regraft.stores.backbones import DEFAULT_BACKBONE
from training.backbones.cache import load_backbone
from training.data.dataset import scan
from training.head.abstention import abstention
from training.head.features import Features
from training.head.fit import fit
from training.head.folds import deal
from training.settings import TrainSettings
from training.strategies.context import Context, SilentListener, embed_dataset

SPLITS = 10
PARTS = 5
TARGETS = (0.01, 0.02, 0.05, 0.1)


def features_of(folder: Path) -> Features:
    """Return the embeddings of a folder's pictures by the default backbone."""
    backbone = load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(TrainSettings(folder), cache_folder(), Path(scratch), SilentListener())
        return embed_dataset(scan(folder), backbone, context)[1]


def realised(features: Features, seed: int) -> list[tuple[float, float, float]]:
    """Return for each target the share answered and the error of it, on a fifth held out, and the share promised."""
    held = deal(features.label_index, PARTS, seed, features.group) == 0
    split = replace(features, is_holdout=held)
    fitted = fit(split, seed=seed)
    probabilities, truth = fitted.head.probabilities(split.embedding[held]), split.label_index[held]
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != truth
    found = []
    for target in TARGETS:
        kept = abstention(fitted.unseen, split, target)
        assert kept is not None
        given = confidence > kept.threshold
        found.append((float(given.mean()), float(wrong[given].mean()) if given.any() else 0.0, kept.answered))
    return found


def main() -> None:
    """Print a table, a row for each set and target."""
    print("| set | pictures | target | share promised | share answered | error, mean | error, worst | splits kept |")  # noqa: T201 - its output
    print("|---|---|---|---|---|---|---|---|")  # noqa: T201 - likewise
    for folder in map(Path, sys.argv[1:]):
        features = features_of(folder)
        splits = np.array([realised(features, seed) for seed in range(SPLITS)])
        for target, (answered, error, promised) in zip(TARGETS, splits.transpose(1, 2, 0), strict=True):
            kept = int((error <= target).sum())
            print(  # noqa: T201 - likewise
                f"| {folder.name} | {len(features.sha256)} | {target:.0%} | {promised.mean():.1%} | "
                f"{answered.mean():.1%} | {error.mean():.2%} | {error.max():.2%} | {kept} of {SPLITS} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
