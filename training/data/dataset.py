"""Labelled pictures of a folder or list: classes, split, skipped files.

``DATA/<class>/...`` is split by the images' hashes; ``DATA/train/<class>/...`` beside ``val`` or ``test`` is taken as
it is, see `training.data.folder_layout`. A list says the split itself, or is split by hash, see
`regraft.datasets.manifest`.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from regraft.datasets.folders import subfolders
from regraft.datasets.manifest import is_manifest
from regraft.errors import DatasetError
from regraft.files import text_of
from regraft.label_rules import image_hash
from regraft.progress import Progress, silent
from regraft.read_ahead import map_ahead
from training.data.file_listing import (
    FileListing,
    ListedImage,
    SkippedFile,
    list_folders,
    list_manifest,
    name_groups,
    root_of,
)
from training.data.groups import NO_PAIRS, Index, group_of_one, hold_out, join

NO_HOLDOUT: Final = "nothing is held out"
_MIN_IMAGES: Final = 2

Part: TypeAlias = Literal["auto", "holdout", "train", "all"]
"""Of labelled pictures, by the split."""


@dataclass(frozen=True)
class LabelledImage(ListedImage):
    """A readable picture with its class and split.

    Attributes:
        sha256: of its bytes (hex).
        group: see `training.data.groups`; -1 where it belongs with no other, as far as is known.
    """

    sha256: str = field(kw_only=True)
    group: int = field(default=-1, kw_only=True)


@dataclass(frozen=True)
class Dataset:
    """Pictures to train on and to hold out.

    Attributes:
        labels: sorted; the order of the head's rows.
        images: distinct pictures.
        left_out: every file that was found and takes no part.
        split: where the split comes from, for people.
        is_given: whether the data came with the split, which is then not ours to change.
        is_settled: whether near-duplicates were looked for, so that split and groups are final.
        notes: what people should know of the data.
    """

    labels: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    left_out: tuple[SkippedFile, ...]
    split: str
    is_given: bool = True
    is_settled: bool = False
    notes: tuple[str, ...] = ()

    @property
    def how_split(self) -> str:
        """Origin of the split, or that nothing is held out."""
        return self.split if any(image.is_holdout for image in self.images) else f"{NO_HOLDOUT} ({self.split})"

    def without(self, failures: Mapping[str, str]) -> "Dataset":
        """Leave out images by hash, each with its reason."""
        images = tuple(image for image in self.images if image.sha256 not in failures)
        skipped = tuple(
            SkippedFile(image.path, failures[image.sha256], image.label)
            for image in self.images
            if image.sha256 in failures
        )
        return replace(self, images=images, left_out=self.left_out + skipped)

    def without_unreadable(self, failures: Mapping[str, str], data: Path) -> "Dataset":
        """Leave out unreadable pictures, by hash and reason.

        Raises:
            DatasetError: none is left.
        """
        dataset = self.without({sha256: f"{reason} (SHA-256 {sha256})" for sha256, reason in failures.items()})
        if not dataset.images:
            first = next(iter(failures.values()))
            raise DatasetError(f"{text_of(data)}: no file can be read as an image; the first one: {first}")
        return dataset


def scan(data: Path, progress: Progress = silent, group_by: str = "") -> Dataset:
    """Find labelled images; reads every file once, decodes none.

    Args:
        data: a folder, or a list of pictures.
        progress: told the stage ``scan``.
        group_by: see `training.data.file_listing.name_groups`; empty for none.

    Raises:
        DatasetError: there is nothing to train on; the text says what the data should look like.
        InvalidRequestError: ``group_by`` is no pattern, or no line of the list makes sense.
    """
    return _read_files(_list_files(data, group_by), data, progress)


def scan_part(data: Path, part: Part, progress: Progress = silent, group_by: str = "") -> Dataset:
    """Find the labelled images of one part, as `scan` does.

    Of a given split no other file is read. The split of what is returned says which part it is.

    Args:
        data: a folder, or a list of pictures.
        part: ``auto`` is the holdout of a given split, else everything.
        progress: told the stage ``scan``.
        group_by: see `training.data.file_listing.name_groups`; empty for none.

    Raises:
        DatasetError: there is nothing in it.
        InvalidRequestError: as `scan`.
    """
    listing = _list_files(data, group_by)
    if part == "auto":
        part = "holdout" if listing.is_given else "all"
    if listing.is_given and part != "all":
        listing = replace(
            listing, images=[image for image in listing.images if image.is_holdout == (part == "holdout")]
        )
    dataset = _read_files(listing, data, progress)
    if part == "all":
        dataset = replace(dataset, split="all of it")
    else:
        wanted = tuple(image for image in dataset.images if image.is_holdout == (part == "holdout"))
        dataset = replace(dataset, images=wanted, split=f"{part} ({dataset.split})")
    if not dataset.images:
        raise DatasetError(f"{text_of(data)}: no picture is in the part {part!r} ({listing.split})")
    return dataset


def _list_files(data: Path, group_by: str) -> FileListing:
    """List the pictures; reads none."""
    listing = list_manifest(data) if is_manifest(data) else list_folders(data, grouped=bool(group_by))
    return name_groups(listing, root_of(data), group_by) if group_by else listing


def _read_files(listing: FileListing, data: Path, progress: Progress) -> Dataset:
    """Read each picture once, and keep groups on one side of the split."""
    images, unusable = _distinct(root_of(data), _read_hashes(listing.images, progress))
    left_out = tuple(listing.left_out + unusable)
    dataset = Dataset(listing.labels, tuple(images), left_out, listing.split, listing.is_given, notes=listing.notes)
    return keep_together(dataset)


def labels_of(data: Path) -> tuple[str, ...]:
    """List the classes of a folder or list; reads no picture.

    Raises:
        DatasetError: there are none.
        InvalidRequestError: no line of the list makes sense.
    """
    return (list_manifest(data) if is_manifest(data) else list_folders(data, grouped=True)).labels


def check_trainable(dataset: Dataset, root: Path) -> None:
    """Check that there are classes with images to train on.

    Raises:
        DatasetError: the text names the class and what was left out of it.
    """
    if len(dataset.labels) < 2:
        hint = ""
        only = root / dataset.labels[0]
        if only.is_dir() and subfolders(only):
            hint = f": did you mean {only}?"
        raise DatasetError(f"{root}: only one class, {dataset.labels[0]!r}; need at least two{hint}")
    counts = Counter(image.label for image in dataset.images if not image.is_holdout)
    for label in dataset.labels:
        if counts[label] < _MIN_IMAGES:
            raise DatasetError(
                f"{root}: class {label!r} has {counts[label]} usable training image(s), need {_MIN_IMAGES}: "
                f"add images or remove the class{_skipped_lines(dataset, label)}"
            )


def keep_together(dataset: Dataset, pairs: Index = NO_PAIRS) -> Dataset:
    """Keep pictures that belong together on one side of the split.

    A split by hash is made anew, by whole groups. Where people made the split it stays; what is trained on there and
    belongs with something that is held out leaves, or the holdout would be asked what the head has seen.

    Args:
        dataset: the pictures, with the names of their groups.
        pairs: int64 [p, 2], further images that belong together.
    """
    images = dataset.images
    group_of = [group_of_one(image.sha256) if image.group < 0 else image.group for image in images]
    group = join(np.array(group_of, np.int64), [image.group_names for image in images], pairs)
    images = tuple(replace(image, group=int(each)) for image, each in zip(images, group, strict=True))
    if dataset.is_given:
        return _without_bridges(replace(dataset, images=images))
    number = {label: index for index, label in enumerate(dataset.labels)}
    is_holdout = hold_out(np.array([number[image.label] for image in images], np.int64), group)
    split = tuple(replace(image, is_holdout=bool(out)) for image, out in zip(images, is_holdout, strict=True))
    return replace(dataset, images=split)


def _without_bridges(dataset: Dataset) -> Dataset:
    """Leave out training pictures that belong with held out ones."""
    holdout: dict[int, LabelledImage] = {}
    for image in dataset.images:
        if image.is_holdout:
            holdout.setdefault(image.group, image)
    failures = {
        image.sha256: _bridge(image, holdout[image.group])
        for image in dataset.images
        if not image.is_holdout and image.group in holdout
    }
    return dataset.without(failures) if failures else dataset


def _bridge(image: LabelledImage, holdout: LabelledImage) -> str:
    shared = [name for name in image.group_names if name in holdout.group_names]
    why = f"both are of group {shared[0]!r}" if shared else "they look nearly the same, or others of their group do"
    return f"belongs with {text_of(holdout.path)}, which is held out: {why}"


def _read_hashes(images: list[ListedImage], progress: Progress) -> list[LabelledImage | SkippedFile]:
    def read(image: ListedImage) -> LabelledImage | SkippedFile:
        try:
            return LabelledImage(sha256=image_hash(image.path.read_bytes()), **vars(image))
        except OSError as error:
            return SkippedFile(image.path, f"cannot be read: {error.strerror}", image.label)

    result = []
    progress("scan", 0, len(images))
    for done, image in enumerate(map_ahead(read, images), start=1):
        result.append(image)
        progress("scan", done, len(images))
    return result


def _distinct(root: Path, entries: list[LabelledImage | SkippedFile]) -> tuple[list[LabelledImage], list[SkippedFile]]:
    """Keep one file of each picture, none of a picture under two labels."""
    left_out = [entry for entry in entries if isinstance(entry, SkippedFile)]
    by_hash: defaultdict[str, list[LabelledImage]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, LabelledImage):
            by_hash[entry.sha256].append(entry)
    images = []
    for copies in by_hash.values():
        # Of copies on several sides the one that is learned from least stays.
        first = max(copies, key=lambda copy: (copy.is_holdout, copy.is_tuning))
        labels = sorted({copy.label for copy in copies})
        if len(labels) > 1:
            left_out += [
                SkippedFile(copy.path, f"the same picture under {len(labels)} labels: {', '.join(labels)}", copy.label)
                for copy in copies
            ]
            continue
        names = dict.fromkeys(name for copy in copies for name in copy.group_names)
        images.append(replace(first, group_names=tuple(names)))
        left_out += [
            SkippedFile(copy.path, f"the same picture as {os.path.relpath(first.path, root)}", copy.label, is_copy=True)
            for copy in copies
            if copy is not first
        ]
    return images, left_out


def _skipped_lines(dataset: Dataset, label: str) -> str:
    """List up to three skipped files of a class, with reasons."""
    skipped = [entry for entry in dataset.left_out if entry.label == label]
    lines = [f"\n  {entry.file}: {entry.reason}" for entry in skipped[:3]]
    more = f"\n  and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return "".join(lines) + more
