"""A folder of labelled photos: which images, which class, which split, and what was left out and why.

``DATA/<class>/...`` is split by the images' hashes; ``DATA/train/<class>/...`` beside ``val`` or ``test`` is taken as
it is. The holdout is ``test`` where there is one (``val`` then joins the training images), else ``val``.
"""

import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from regraft.errors import DatasetError, InvalidRequestError
from regraft.examples import HOLDOUT_SHARE, image_hash
from regraft.labels import check_label
from regraft.progress import Progress, silent
from regraft.runtime import cpu_budget

_VAL_NAMES: Final = ("val", "valid", "validation")
_MIN_IMAGES: Final = 2


@dataclass(frozen=True)
class LabelledImage:
    """One file, its class and its split."""

    path: Path
    sha256: str
    label: str
    is_holdout: bool


@dataclass(frozen=True)
class LeftOut:
    """A file that takes no part, and the reason."""

    file: Path
    reason: str

    @property
    def name(self) -> str:
        """The file as text that can be written anywhere."""
        return text_of(self.file)


@dataclass(frozen=True)
class Dataset:
    """What can be trained on.

    Attributes:
        labels: sorted; the order of the head's rows.
        images: distinct pictures.
        left_out: every file that was found and takes no part.
        split: where the split comes from, for people.
    """

    labels: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    left_out: tuple[LeftOut, ...]
    split: str

    def without(self, failures: dict[str, str]) -> "Dataset":
        """Return the dataset without the images named by hash, each left out with its reason."""
        kept = tuple(image for image in self.images if image.sha256 not in failures)
        gone = tuple(LeftOut(image.path, failures[image.sha256]) for image in self.images if image.sha256 in failures)
        return replace(self, images=kept, left_out=self.left_out + gone)


def text_of(path: Path) -> str:
    """Return a path as text; bytes in a file's name that are no text are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def scan(root: Path, progress: Progress = silent) -> Dataset:
    """Find the labelled images under ``root``. Reads every file once; decodes none.

    Raises:
        DatasetError: there is nothing to train on; the text says what the folder should look like.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: not a folder")
    splits = _split_folders(root)
    left_out = [LeftOut(path, "not inside a class folder") for path in _files(root, deep=False)]
    found: list[tuple[Path, str, bool]] = []
    for folder, is_holdout in splits.items():
        if folder != root:
            left_out += [LeftOut(path, "not inside a class folder") for path in _files(folder, deep=False)]
        for class_folder in _subfolders(folder):
            _check_class_name(class_folder)
            found += [(path, class_folder.name, is_holdout) for path in _files(class_folder, deep=True)]
    labels = tuple(sorted({folder.name for split in splits for folder in _subfolders(split)}))
    if not labels:
        raise DatasetError(f"{root}: no class folders; need one folder of images for each class")
    if not found:
        raise DatasetError(f"{root}: no images in {', '.join(labels)}")
    images, unusable = _distinct(root, _read_hashes(found, progress))
    if len(splits) == 1:
        images = _split_by_hash(images)
    names = {folder.name: is_holdout for folder, is_holdout in splits.items()}
    split = (
        f"{HOLDOUT_SHARE:.0%} of each class by image hash"
        if len(splits) == 1
        else "folders: train on "
        + ", ".join(n for n, h in names.items() if not h)
        + "; holdout "
        + ", ".join(n for n, h in names.items() if h)
    )
    return Dataset(labels, tuple(images), tuple(left_out + unusable), split)


def check_trainable(dataset: Dataset, root: Path) -> None:
    """Check that every class has images to train on.

    Raises:
        DatasetError: the text names the class and what was left out of it.
    """
    if len(dataset.labels) < 2:
        hint = ""
        only = root / dataset.labels[0]
        if only.is_dir() and _subfolders(only):
            hint = f": did you mean {only}?"
        raise DatasetError(f"{root}: only one class, {dataset.labels[0]!r}; need at least two{hint}")
    counts = Counter(image.label for image in dataset.images if not image.is_holdout)
    for label in dataset.labels:
        if counts[label] < _MIN_IMAGES:
            raise DatasetError(
                f"{root}: class {label!r} has {counts[label]} usable training image(s), need {_MIN_IMAGES}: "
                f"add images or remove the folder{_excuses(dataset, label, root)}"
            )


def _split_folders(root: Path) -> dict[Path, bool]:
    """Return the folders that hold class folders, and whether each is holdout."""
    train, test = root / "train", root / "test"
    val = next((root / name for name in _VAL_NAMES if (root / name).is_dir()), None)
    if not train.is_dir() or (val is None and not test.is_dir()):
        return {root: False}
    if not test.is_dir() and val is not None:
        return {train: False, val: True}
    return {train: False, **({val: False} if val else {}), test: True}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, *, deep: bool) -> list[Path]:
    paths = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in paths if path.is_file() and not _is_hidden(path, folder))


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _check_class_name(folder: Path) -> None:
    try:
        check_label(folder.name)
    except InvalidRequestError as error:
        raise DatasetError(f"{folder}: a folder's name is its label: {error}") from error


def _read_hashes(found: list[tuple[Path, str, bool]], progress: Progress) -> list[LabelledImage | LeftOut]:
    def read(entry: tuple[Path, str, bool]) -> LabelledImage | LeftOut:
        path, label, is_holdout = entry
        try:
            return LabelledImage(path, image_hash(path.read_bytes()), label, is_holdout)
        except OSError as error:
            return LeftOut(path, f"cannot be read: {error.strerror}")

    result = []
    with ThreadPoolExecutor(cpu_budget()) as pool:
        for done, image in enumerate(pool.map(read, found), start=1):
            result.append(image)
            progress("scan", done, len(found))
    return result


def _distinct(root: Path, found: list[LabelledImage | LeftOut]) -> tuple[list[LabelledImage], list[LeftOut]]:
    """Keep one file of each picture; of a picture under two labels keep none; a holdout picture is not trained on."""
    left_out = [entry for entry in found if isinstance(entry, LeftOut)]
    by_hash: defaultdict[str, list[LabelledImage]] = defaultdict(list)
    for entry in found:
        if isinstance(entry, LabelledImage):
            by_hash[entry.sha256].append(entry)
    images = []
    for copies in by_hash.values():
        kept = next((copy for copy in copies if copy.is_holdout), copies[0])
        labels = sorted({copy.label for copy in copies})
        if len(labels) > 1:
            left_out += [
                LeftOut(copy.path, f"the same picture under {len(labels)} labels: {', '.join(labels)}")
                for copy in copies
            ]
            continue
        images.append(kept)
        left_out += [
            LeftOut(copy.path, f"the same picture as {kept.path.relative_to(root)}")
            for copy in copies
            if copy is not kept
        ]
    return images, left_out


def _split_by_hash(images: list[LabelledImage]) -> list[LabelledImage]:
    """Hold out the pictures with the lowest hashes of each class; a class of fewer than three stays whole."""
    by_label: defaultdict[str, list[LabelledImage]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.sha256):
        by_label[image.label].append(image)
    split = []
    for members in by_label.values():
        held = 0 if len(members) <= _MIN_IMAGES else max(1, round(HOLDOUT_SHARE * len(members)))
        split += [replace(image, is_holdout=rank < held) for rank, image in enumerate(members)]
    return split


def _excuses(dataset: Dataset, label: str, root: Path) -> str:
    """Return up to three files that the class lost, with the reasons."""
    lost = [entry for entry in dataset.left_out if label in entry.file.relative_to(root).parts[:2]]
    lines = [f"\n  {entry.file}: {entry.reason}" for entry in lost[:3]]
    more = f"\n  and {len(lost) - 3} more" if len(lost) > 3 else ""
    return "".join(lines) + more
