"""Labelled photos, in folders or by a list: which images, which class, which split, and what was left out and why.

``DATA/<class>/...`` is split by the images' hashes; ``DATA/train/<class>/...`` beside ``val`` or ``test`` is taken as
it is, see `training.data.folder_layout`. A list says the split itself, or is split by hash, see
`regraft.datasets.manifest`.
"""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from regraft.datasets.folders import folders_in
from regraft.datasets.manifest import is_manifest
from regraft.errors import DatasetError
from regraft.files import text_of
from regraft.label_rules import image_hash
from regraft.progress import Progress, silent
from regraft.read_ahead import map_ahead
from training.data.groups import NO_PAIRS, Index, group_of_one, hold_out, join
from training.data.scan import Found, FoundImage, LeftOut, in_folders, in_list, name_groups, root_of

NO_HOLDOUT: Final = "nothing is held out"
_MIN_IMAGES: Final = 2

Part: TypeAlias = Literal["auto", "holdout", "train", "all"]
"""Of labelled pictures, by the split."""


@dataclass(frozen=True)
class LabelledImage(FoundImage):
    """A picture that could be read, with its class and its split.

    Attributes:
        sha256: of its bytes (hex).
        group: see `training.data.groups`; -1 where it belongs with no other, as far as is known.
    """

    sha256: str = field(kw_only=True)
    group: int = field(default=-1, kw_only=True)


@dataclass(frozen=True)
class Dataset:
    """What can be trained on.

    Attributes:
        labels: sorted; the order of the head's rows.
        images: distinct pictures.
        left_out: every file that was found and takes no part.
        split: where the split comes from, for people.
        is_given: whether somebody made the split, so that it is not ours to change.
        is_settled: whether near-duplicates were looked for, so that split and groups are final.
        notes: what people should know of the data.
    """

    labels: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    left_out: tuple[LeftOut, ...]
    split: str
    is_given: bool = True
    is_settled: bool = False
    notes: tuple[str, ...] = ()

    @property
    def how_split(self) -> str:
        """Where the split comes from, or that nothing is held out."""
        return self.split if any(image.is_holdout for image in self.images) else f"{NO_HOLDOUT} ({self.split})"

    def without(self, failures: dict[str, str]) -> "Dataset":
        """Return the dataset without the images named by hash, each left out with its reason."""
        kept = tuple(image for image in self.images if image.sha256 not in failures)
        gone = tuple(
            LeftOut(image.path, failures[image.sha256], image.label)
            for image in self.images
            if image.sha256 in failures
        )
        return replace(self, images=kept, left_out=self.left_out + gone)


def scan(data: Path, progress: Progress = silent, group_by: str = "") -> Dataset:
    """Find labelled images. Reads every file once; decodes none.

    Args:
        data: a folder, or a list of pictures.
        progress: told the stage ``scan``.
        group_by: see `training.data.scan.name_groups`; empty for none.

    Raises:
        DatasetError: there is nothing to train on; the text says what the data should look like.
        InvalidRequestError: ``group_by`` is no pattern, or no line of the list makes sense.
    """
    return _settled(_found(data, group_by), data, progress)


def scan_part(data: Path, part: Part, progress: Progress = silent, group_by: str = "") -> Dataset:
    """Find the labelled images of one part, as `scan` does.

    Of a split that somebody made no other file is read. The split of what is returned says which part it is.

    Args:
        data: a folder, or a list of pictures.
        part: ``auto`` is the holdout where somebody made a split, and else everything.
        progress: told the stage ``scan``.
        group_by: see `training.data.scan.name_groups`; empty for none.

    Raises:
        DatasetError: there is nothing in it.
        InvalidRequestError: as `scan`.
    """
    found = _found(data, group_by)
    if part == "auto":
        part = "holdout" if found.is_given else "all"
    if found.is_given and part != "all":
        found = replace(found, images=[image for image in found.images if image.is_holdout == (part == "holdout")])
    dataset = _settled(found, data, progress)
    if part == "all":
        dataset = replace(dataset, split="all of it")
    else:
        wanted = tuple(image for image in dataset.images if image.is_holdout == (part == "holdout"))
        dataset = replace(dataset, images=wanted, split=f"{part} ({dataset.split})")
    if not dataset.images:
        raise DatasetError(f"{text_of(data)}: no picture is in the part {part!r} ({found.split})")
    return dataset


def _found(data: Path, group_by: str) -> Found:
    """Return the pictures as they are found, none of them read."""
    found = in_list(data) if is_manifest(data) else in_folders(data, grouped=bool(group_by))
    return name_groups(found, root_of(data), group_by) if group_by else found


def _settled(found: Found, data: Path, progress: Progress) -> Dataset:
    """Return each picture once, groups on one side of the split."""
    images, unusable = _distinct(root_of(data), _read_hashes(found.images, progress))
    left_out = tuple(found.left_out + unusable)
    dataset = Dataset(found.labels, tuple(images), left_out, found.split, found.is_given, notes=found.notes)
    return keep_together(dataset)


def labels_of(data: Path) -> tuple[str, ...]:
    """Return the classes of a folder, or of a list, without reading a picture.

    Raises:
        DatasetError: there are none.
        InvalidRequestError: no line of the list makes sense.
    """
    return (in_list(data) if is_manifest(data) else in_folders(data, grouped=True)).labels


def check_trainable(dataset: Dataset, root: Path) -> None:
    """Check that every class has images to train on.

    Raises:
        DatasetError: the text names the class and what was left out of it.
    """
    if len(dataset.labels) < 2:
        hint = ""
        only = root / dataset.labels[0]
        if only.is_dir() and folders_in(only):
            hint = f": did you mean {only}?"
        raise DatasetError(f"{root}: only one class, {dataset.labels[0]!r}; need at least two{hint}")
    counts = Counter(image.label for image in dataset.images if not image.is_holdout)
    for label in dataset.labels:
        if counts[label] < _MIN_IMAGES:
            raise DatasetError(
                f"{root}: class {label!r} has {counts[label]} usable training image(s), need {_MIN_IMAGES}: "
                f"add images or remove the class{_excuses(dataset, label)}"
            )


def keep_together(dataset: Dataset, pairs: Index = NO_PAIRS) -> Dataset:
    """Bring pictures that belong together to one side of the split.

    A split by hash is made anew, by whole groups. Where people made the split it stays; what is trained on there and
    belongs with something that is held out leaves, or the holdout would be asked what the head has seen.

    Args:
        dataset: the pictures, with the names of their groups.
        pairs: int64 [p, 2], further images that belong together.
    """
    images = dataset.images
    known = [group_of_one(image.sha256) if image.group < 0 else image.group for image in images]
    group = join(np.array(known, np.int64), [image.group_names for image in images], pairs)
    images = tuple(replace(image, group=int(each)) for image, each in zip(images, group, strict=True))
    if dataset.is_given:
        return _without_bridges(replace(dataset, images=images))
    number = {label: index for index, label in enumerate(dataset.labels)}
    held = hold_out(np.array([number[image.label] for image in images], np.int64), group)
    split = tuple(replace(image, is_holdout=bool(out)) for image, out in zip(images, held, strict=True))
    return replace(dataset, images=split)


def _without_bridges(dataset: Dataset) -> Dataset:
    """Leave out what is trained on and belongs with something that is held out."""
    held: dict[int, LabelledImage] = {}
    for image in dataset.images:
        if image.is_holdout:
            held.setdefault(image.group, image)
    failures = {
        image.sha256: _bridge(image, held[image.group])
        for image in dataset.images
        if not image.is_holdout and image.group in held
    }
    return dataset.without(failures) if failures else dataset


def _bridge(image: LabelledImage, held: LabelledImage) -> str:
    shared = [name for name in image.group_names if name in held.group_names]
    why = f"both are of group {shared[0]!r}" if shared else "they look nearly the same, or others of their group do"
    return f"belongs with {text_of(held.path)}, which is held out: {why}"


def _read_hashes(found: list[FoundImage], progress: Progress) -> list[LabelledImage | LeftOut]:
    def read(image: FoundImage) -> LabelledImage | LeftOut:
        try:
            return LabelledImage(sha256=image_hash(image.path.read_bytes()), **vars(image))
        except OSError as error:
            return LeftOut(image.path, f"cannot be read: {error.strerror}", image.label)

    result = []
    progress("scan", 0, len(found))
    for done, image in enumerate(map_ahead(read, found), start=1):
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
        # Of copies on several sides the one that is learned from least stays.
        kept = max(copies, key=lambda copy: (copy.is_holdout, copy.is_tuning))
        labels = sorted({copy.label for copy in copies})
        if len(labels) > 1:
            left_out += [
                LeftOut(copy.path, f"the same picture under {len(labels)} labels: {', '.join(labels)}", copy.label)
                for copy in copies
            ]
            continue
        names = dict.fromkeys(name for copy in copies for name in copy.group_names)
        images.append(replace(kept, group_names=tuple(names)))
        left_out += [
            LeftOut(copy.path, f"the same picture as {os.path.relpath(kept.path, root)}", copy.label, is_copy=True)
            for copy in copies
            if copy is not kept
        ]
    return images, left_out


def _excuses(dataset: Dataset, label: str) -> str:
    """Return up to three files that the class lost, with the reasons."""
    lost = [entry for entry in dataset.left_out if entry.label == label]
    lines = [f"\n  {entry.file}: {entry.reason}" for entry in lost[:3]]
    more = f"\n  and {len(lost) - 3} more" if len(lost) > 3 else ""
    return "".join(lines) + more
