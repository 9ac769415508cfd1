"""Listing of labelled files in class folders or a manifest."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from regraft.datasets.folders import list_folder, subfolders
from regraft.datasets.manifest import LabelledFile, read_manifest
from regraft.errors import DatasetError, InvalidRequestError
from regraft.files import text_of
from regraft.label_rules import HOLDOUT_SHARE, check_label, check_note, nfc
from training.data import folder_layout
from training.data.folder_layout import Layout, check_classes, find_layout

PARENT: Final = "parent"
"""What ``--group-by`` calls the folder of a picture."""
_BY_HASH: Final = f"{HOLDOUT_SHARE:.0%} of each class by image hash"


@dataclass(frozen=True)
class ListedImage:
    """A file with its label, split and group.

    Attributes:
        group_names: what it shares with those that belong with it.
        weight: what it counts in the fit.
        source: where it comes from, as far as a list says so.
        is_tuning: whether it stops and tunes a fine-tuning instead of being learned from.
    """

    path: Path
    label: str
    is_holdout: bool
    group_names: tuple[str, ...] = ()
    weight: float = 1.0
    source: str = ""
    is_tuning: bool = False


@dataclass(frozen=True)
class SkippedFile:
    """A file that takes no part, with the reason.

    Attributes:
        label: its class, where it has one.
        is_copy: whether another file, which has the same bytes, takes part.
    """

    file: Path
    reason: str
    label: str = ""
    is_copy: bool = False

    @property
    def name(self) -> str:
        """The file as text that can be written anywhere."""
        return text_of(self.file)


@dataclass(frozen=True)
class FileListing:
    """Labelled files and skipped ones.

    Attributes:
        labels: sorted; those of empty class folders too.
        split: where the split comes from, for people.
        is_given: whether the data came with the split, which is then not ours to change.
        notes: what people should know of the data.
    """

    images: list[ListedImage]
    left_out: list[SkippedFile]
    labels: tuple[str, ...]
    split: str
    is_given: bool
    notes: tuple[str, ...] = ()


def root_of(data: Path) -> Path:
    """Return the folder that pictures' paths are relative to."""
    return data if data.is_dir() else data.parent


def shown_path(path: Path, data: Path) -> str:
    """Shorten a path for reports: relative to the data, or the name alone."""
    root = root_of(data)
    return text_of(path.relative_to(root) if path.is_relative_to(root) else Path(path.name))


def list_folders(root: Path, *, grouped: bool) -> FileListing:
    """List the pictures in class folders.

    Args:
        root: the folder, see `training.data.folder_layout`.
        grouped: whether the folders inside class folders are known to be groups.

    Raises:
        DatasetError: there are none, or it is doubtful which folders are the classes.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: not a folder, nor a list that ends in .csv, .jsonl or .parquet")
    places = find_layout(root)
    if not grouped:
        check_classes(places)
    loose = {root, *places.train, *places.tune, *places.holdout}
    left_out = [entry for folder in sorted(loose) for entry in _loose(folder)]
    left_out += [SkippedFile(folder, "has no labelled pictures") for folder in places.unlabelled]
    left_out += [_beside(folder, places) for folder in places.beside]
    images: list[ListedImage] = []
    labels: set[str] = set()
    for folder in (*places.train, *places.tune, *places.holdout):
        for class_folder in subfolders(folder):
            label = _label_of(class_folder)
            labels.add(label)
            inside = list_folder(class_folder)
            images += [
                ListedImage(path, label, folder in places.holdout, is_tuning=folder in places.tune)
                for path in sorted(inside.files)
            ]
            left_out += [SkippedFile(path, reason, label) for path, reason in inside.left_out]
    if not labels:
        raise DatasetError(f"{root}: no class folders; need one folder of images for each class")
    if not images:
        raise DatasetError(f"{root}: no images in {', '.join(sorted(labels))}")
    return FileListing(images, left_out, tuple(sorted(labels)), _split_of(places, root), is_given=bool(places.holdout))


def _split_of(places: Layout, root: Path) -> str:
    def names(folders: Sequence[Path]) -> str:
        return ", ".join(folder.relative_to(root).as_posix() for folder in folders)

    tune = f"; stop and tune by {names(places.tune)}" if places.tune else ""
    given = f"folders: train on {names(places.train)}{tune}; holdout {names(places.holdout)}"
    empty = f"; {names(places.unlabelled)} has no labelled pictures" if places.unlabelled else ""
    return (given if places.holdout else _BY_HASH) + empty


def list_manifest(path: Path) -> FileListing:
    """List the pictures that a manifest names.

    Lines that cannot be trained on are left out, each with its reason.

    Raises:
        InvalidRequestError: no line of the list makes sense.
        DatasetError: no line can be trained on.
    """
    manifest = read_manifest(path)
    left_out = [SkippedFile(path, f"{line.place}: {line.reason}") for line in manifest.bad]
    roles = _roles(manifest.files)
    images = []
    for file in manifest.files:
        reason = _complaint(file, roles)
        if reason or file.path is None:
            left_out.append(SkippedFile(path, f"{file.place}: {reason}", file.label))
            continue
        is_holdout = roles.get(file.split.casefold()) == "holdout"
        names = (file.group,) if file.group else ()
        tuning = roles.get(file.split.casefold()) == "tune"
        images.append(ListedImage(file.path, nfc(file.label), is_holdout, names, file.weight, file.source, tuning))
    if not images:
        raise DatasetError(f"{path}: no line can be trained on; the first: {left_out[0].reason}")
    notes = []
    if manifest.unused:
        notes.append(f"Columns of {path.name} that were not used: {', '.join(manifest.unused)}.")
    if not roles and (split := next((file.split for file in manifest.files if file.split), "")):
        notes.append(
            f"The split is not taken from {path.name}: {split!r} and the like are neither train, val nor test."
        )
    given = any(image.is_holdout for image in images)
    tune = f"; stop and tune by {_called(roles, 'tune')}" if "tune" in roles.values() else ""
    split = (
        f"{path.name}: train on {_called(roles, 'train')}{tune}; holdout {_called(roles, 'holdout')}"
        if given
        else _BY_HASH
    )
    labels = tuple(sorted({image.label for image in images}))
    return FileListing(images, left_out, labels, split, given, tuple(notes))


def _roles(files: Sequence[LabelledFile]) -> dict[str, str]:
    """Assign roles to the splits of a manifest: train, tune or holdout."""
    names = {file.split.casefold() for file in files}
    splits = {*folder_layout.TRAIN, *folder_layout.VAL, *folder_layout.TEST}
    holdout = set(folder_layout.TEST) & names or set(folder_layout.VAL) & names
    tune = set(folder_layout.VAL) - holdout
    return {name: "holdout" if name in holdout else "tune" if name in tune else "train" for name in names & splits}


def _called(roles: Mapping[str, str], wanted: str) -> str:
    return ", ".join(sorted(name for name, role in roles.items() if role == wanted))


def _complaint(file: LabelledFile, roles: Mapping[str, str]) -> str:
    """Return the reason against a line, empty if it can be trained on."""
    if file.path is None:
        return "names a request, not a file"
    if roles and file.split.casefold() not in roles:
        return f"split {file.split!r}: need train, val or test, as other lines say"
    try:
        check_label(nfc(file.label))
        check_note("source", file.source)
    except InvalidRequestError as error:
        return str(error)
    return ""


def name_groups(listing: FileListing, root: Path, group_by: str) -> FileListing:
    """Group pictures by their paths, beside the groups that they have.

    Args:
        listing: the pictures.
        root: what their paths begin at.
        group_by: `PARENT`, or a pattern whose first group names what belongs together. A picture right inside its
            class folder has no parent to belong to.

    Raises:
        InvalidRequestError: the pattern is none, or fits nothing.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InvalidRequestError(f"--group-by: {group_by!r} is no regular expression: {error}") from error
    images, alone = [], 0
    for image in listing.images:
        key = _group_key(Path(os.path.relpath(image.path, root)), image.label, group_by, pattern)
        alone += not key
        images.append(replace(image, group_names=(*image.group_names, key)) if key else image)
    if alone == len(images):
        first = text_of(Path(os.path.relpath(images[0].path, root)))
        raise InvalidRequestError(f"--group-by: {group_by!r} fits none of {alone} paths; the first is {first}")
    notes = [f"--group-by fits {len(images) - alone} of {len(images)} paths; the others belong to no group."]
    return replace(listing, images=images, notes=(*listing.notes, *(notes if alone else [])))


def _group_key(path: Path, label: str, group_by: str, pattern: re.Pattern[str]) -> str:
    """Derive a picture's group from its path, empty if nothing fits."""
    if group_by == PARENT:
        return "" if nfc(path.parent.name) in ("", label) else path.parent.as_posix()
    match = pattern.search(path.as_posix())
    return ((match[1] if pattern.groups else match[0]) or "") if match else ""


def _loose(folder: Path) -> list[SkippedFile]:
    """List the files beside class folders."""
    right_inside = list_folder(folder, deep=False)
    files = [SkippedFile(path, "not inside a class folder") for path in right_inside.files]
    return files + [SkippedFile(path, reason) for path, reason in right_inside.left_out]


def _beside(folder: Path, places: Layout) -> SkippedFile:
    """Skip a folder beside others, and count its files."""
    others = [each.name for each in (*places.train, *places.holdout) if each.parent == folder.parent]
    count = len(list_folder(folder).files)
    names = " and ".join(others or [folder_layout.WRAPPER])
    return SkippedFile(folder, f"lies beside {names}; files in it that take no part: {count}")


def _label_of(folder: Path) -> str:
    label = nfc(folder.name)
    try:
        check_label(label)
    except InvalidRequestError as error:
        raise DatasetError(f"{folder}: a folder's name is its label: {error}") from error
    return label
