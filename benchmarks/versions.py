"""Do augmented versions of the training pictures still flatter the accuracy that is reported?

    python -m benchmarks.versions DATA/train [--pictures 50] [--versions 3] [--seed 0] [--backbone efficientnet_lite0]

Draws some pictures of each class, writes so many augmented versions of each into class folders, trains a probe on them,
and asks it for the other pictures, as they are. Once as Regraft does it, once with every picture on its own, as if
nobody looked for near-duplicates.
"""

import argparse
import io
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

from regraft.files import cache_folder
from training.backbones.cache import ExportedBackbone, load_backbone
from training.data.dataset import scan
from training.data.groups import groups_of_one, hold_out
from training.data.split import split_by_likeness
from training.evaluation.metrics import measure
from training.head.features import Features
from training.head.fit import fit
from training.settings import TrainSettings
from training.strategies.context import Context, SilentListener, embed_dataset

Change = Callable[[Image.Image, random.Random], Image.Image]


def cropped(image: Image.Image, chance: random.Random, least: float) -> Image.Image:
    """Return a window that has at least a share of the area."""
    side = chance.uniform(least, 1) ** 0.5
    width, height = int(image.width * side), int(image.height * side)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def light(image: Image.Image, chance: random.Random) -> Image.Image:
    """Return what a light augmentation makes: a crop, perhaps mirrored, a little brighter or darker."""
    image = cropped(image, chance, 0.8)
    image = ImageOps.mirror(image) if chance.random() < 0.5 else image
    return ImageEnhance.Brightness(image).enhance(chance.uniform(0.9, 1.1))


def usual(image: Image.Image, chance: random.Random) -> Image.Image:
    """Return what the usual augmentation makes: smaller crops, turned by up to 20 degrees, other light and colour."""
    image = light(cropped(image, chance, 0.75), chance).rotate(chance.uniform(-20, 20), Image.Resampling.BICUBIC)
    return ImageEnhance.Color(image).enhance(chance.uniform(0.8, 1.2))


CHANGES: Final[dict[str, Change]] = {
    "light": light,
    "usual": usual,
    "turned by 90 degrees": lambda image, chance: image.rotate(90 * chance.randint(0, 3), expand=True),
    "mirrored": lambda image, chance: ImageOps.mirror(image) if chance.random() < 0.5 else image,
    "cropped to 60 %": lambda image, chance: cropped(image, chance, 0.6),
    "other colours": lambda image, chance: ImageEnhance.Color(image).enhance(chance.uniform(0.3, 1.7)),
}


def write_versions(
    source: Path, data: Path, fresh: Path, *, pictures: int, versions: int, change: Change, seed: int = 0
) -> None:
    """Write augmented versions of pictures drawn of each class into ``data``, and link the others into ``fresh``.

    The name of a version begins with that of its picture.
    """
    for class_folder in sorted(path for path in source.iterdir() if path.is_dir()):
        for folder in (data, fresh):
            (folder / class_folder.name).mkdir(parents=True)
        paths = sorted(class_folder.iterdir())
        drawn = random.Random(f"{class_folder.name}/{seed}").sample(paths, pictures)  # noqa: S311 - no secret
        for path in set(paths).difference(drawn):
            (fresh / class_folder.name / path.name).symlink_to(path.resolve())
        for path in drawn:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            for version in range(versions):
                buffer = io.BytesIO()
                chance = random.Random(f"{path.name}/{version}")  # noqa: S311 - likewise
                change(image, chance).save(buffer, "JPEG", quality=90)
                (data / class_folder.name / f"{path.stem}.{version}.jpg").write_bytes(buffer.getvalue())


@dataclass(frozen=True)
class Outcome:
    """What a run says of itself, and what is true.

    Attributes:
        holdout: its accuracy on its own holdout, and that figure's interval.
        fresh: on pictures that it has never seen.
        c: the inverse strength of the penalty that was chosen.
        kept: the share of pictures' versions that lie on one side with all others of theirs.
    """

    holdout: float
    interval: tuple[float, float]
    fresh: float
    c: float
    kept: float

    @property
    def is_honest(self) -> bool:
        """Whether the interval covers the truth."""
        return self.interval[0] <= self.fresh <= self.interval[1]


def outcome(features: Features, fresh: Features, names: list[str]) -> Outcome:
    """Fit a head, and compare what its holdout says with what it does on fresh pictures."""
    fitted, holdout = fit(features), features.holdout()
    said = fitted.head.probabilities(holdout.embedding)
    metrics = measure(said, holdout.label_index, features.labels, holdout.group)
    assert metrics is not None
    answers = fitted.head.probabilities(fresh.embedding).argmax(axis=1)
    picture = np.unique(names, return_inverse=True)[1]
    held = np.bincount(picture, features.is_holdout) / np.bincount(picture)
    return Outcome(
        metrics.accuracy,
        metrics.accuracy_interval,
        float((answers == fresh.label_index).mean()),
        float(fitted.choices["c"]),
        float(((held == 0) | (held == 1)).mean()),
    )


def compare(data: Path, fresh: Path, backbone: ExportedBackbone, cache: Path) -> tuple[Outcome, Outcome]:
    """Return the outcome with every picture on its own, and with near-duplicates kept together."""
    context = Context(TrainSettings(data), cache, data, SilentListener())
    dataset, features, _ = embed_dataset(scan(data), backbone, context)
    judged = embed_dataset(scan(fresh), backbone, context)[1]
    paths = {image.sha256: image.path for image in dataset.images}
    names = [f"{paths[sha256].parent.name}/{paths[sha256].stem.rsplit('.', 1)[0]}" for sha256 in features.sha256]
    alone = groups_of_one(features.sha256)
    apart = replace(features, group=alone, is_holdout=hold_out(features.label_index, alone))
    together = split_by_likeness(dataset, features)[1]
    return outcome(apart, judged, names), outcome(together, judged, names)


def main() -> None:
    """Print a row for each kind of augmentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=50, help="of each class")
    parser.add_argument("--versions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="draws the pictures")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    arguments = parser.parse_args()
    cache = cache_folder()
    backbone = load_backbone(arguments.backbone, "default", 0, cache)
    table = Table("augmentation", "versions", "holdout", "interval", "fresh", "covered", "C", "on one side")
    for name, change in CHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            data, fresh = Path(folder) / "data", Path(folder) / "fresh"
            counts = {"pictures": arguments.pictures, "versions": arguments.versions, "seed": arguments.seed}
            write_versions(arguments.data, data, fresh, change=change, **counts)
            outcomes = compare(data, fresh, backbone, cache)
        for how, found in zip(("apart", "together"), outcomes, strict=True):
            interval = " - ".join(f"{end:.3f}" for end in found.interval)
            figures = (f"{found.holdout:.3f}", interval, f"{found.fresh:.3f}", "yes" if found.is_honest else "no")
            table.add_row(name, how, *figures, f"{found.c:.3g}", f"{found.kept:.1%}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
