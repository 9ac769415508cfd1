"""Layouts of labelled folders: class folders and held out ones."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regraft.datasets.folders import list_folder, subfolders
from regraft.errors import DatasetError
from regraft.label_rules import listed, nfc

TRAIN: Final = ("train", "training")
VAL: Final = ("val", "valid", "validation", "dev")
TEST: Final = ("test", "testing", "eval")
WRAPPER: Final = "images"
_NO_CLASSES: Final = (WRAPPER, "all", "unknown", "unlabeled", "unlabelled")
_SHOWN: Final = 5


@dataclass(frozen=True)
class Layout:
    """Folders that hold class folders, by their role.

    Attributes:
        train: to train on; where nothing is held out, to be split by hash.
        holdout: to judge by.
        tune: to stop and tune by, where others are there to judge by.
        unlabelled: holdout folders in which there are no labelled pictures.
        beside: folders that are not looked into, because of what lies beside them.
    """

    train: tuple[Path, ...]
    holdout: tuple[Path, ...] = ()
    unlabelled: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    tune: tuple[Path, ...] = ()


def find_layout(root: Path) -> Layout:
    """Find the class folders under ``root``.

    Folders may have any common name of train, val and test, in any case. Test pictures are held out where there are
    any, and those of val then stop and tune what is trained.
    """
    inner, beside = _unwrapped(root)
    roles = _roles(inner)
    if not roles["train"] or not (roles["val"] or roles["test"]):
        return Layout((inner,), beside=beside)
    split_folders = [folder for role in roles.values() for folder in role]
    beside += tuple(folder for folder in subfolders(inner) if folder not in split_folders)
    train, val, test = (tuple(_unwrapped(folder)[0] for folder in roles[role]) for role in ("train", "val", "test"))
    classes = {nfc(each.name) for folder in train for each in subfolders(folder)}
    unlabelled = tuple(folder for folder in (*val, *test) if not _has_labelled(folder, classes))
    val, test = (tuple(folder for folder in part if folder not in unlabelled) for part in (val, test))
    if test:
        return Layout(train, test, unlabelled, beside, val)
    return Layout(train, val, unlabelled, beside)


def check_classes(layout: Layout) -> None:
    """Refuse class folders that hold those of another layout.

    Raises:
        DatasetError: the text names the layout that was meant, and what to do if this one was.
    """
    for folder in layout.train:
        inside = {each: names for each in subfolders(folder) if len(names := _only_folders(each)) > 1}
        lonely = next((each for each in inside if each.name.casefold() in TRAIN), None)
        if lonely:
            raise DatasetError(
                f"{lonely}: holds folders ({_listed(inside[lonely])}) as if they were the classes, but beside it there "
                f"is no val or test: train on {lonely}, of which a part is held out then, or call the folder of the "
                f"pictures to judge by {lonely.with_name('val')}; {_OTHERWISE}"
            )
        alike = _alike(inside)
        if 2 * len(alike) < max(4, len(subfolders(folder))):
            continue
        shared = frozenset.intersection(*(inside[each] for each in alike))
        splits = sorted(name for name in shared if name.casefold() in {*TRAIN, *VAL, *TEST})
        meant = (
            f"the split goes above the classes: {folder / splits[0] / alike[0].name}"
            if splits
            else f"{folder / 'train' / min(shared)} and {folder / 'val' / min(shared)}, or {alike[0]} alone"
        )
        outer = _listed(each.name for each in alike)
        raise DatasetError(
            f"{folder}: {outer} hold the same folders ({_listed(shared)}): meant is {meant}; {_OTHERWISE}"
        )


_OTHERWISE: Final = "if the folders inside are sessions or patients of each class, add --group-by parent"


def _roles(root: Path) -> dict[str, list[Path]]:
    folders: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in subfolders(root):
        for role, names in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            if folder.name.casefold() in names:
                folders[role].append(folder)
    return {role: folders[role] for role in ("train", "val", "test")}


def _unwrapped(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """Step into a folder called images; return it and what lies beside."""
    folders = subfolders(folder)
    inner = next((each for each in folders if each.name.casefold() == WRAPPER and subfolders(each)), None)
    if inner is None:
        return folder, ()
    roles = _roles(inner)
    split_in_it = roles["train"] and (roles["val"] or roles["test"]) and not _roles(folder)["train"]
    if not split_in_it and len(folders) > 1:
        return folder, ()
    return inner, tuple(each for each in folders if each != inner)


def _has_labelled(folder: Path, classes: Collection[str]) -> bool:
    """Return whether pictures lie in class folders, not in a single one."""
    no_classes = {*_NO_CLASSES, folder.name.casefold()}
    return any(
        (nfc(each.name) in classes or each.name.casefold() not in no_classes) and list_folder(each).files
        for each in subfolders(folder)
    )


def _only_folders(folder: Path) -> frozenset[str]:
    """List the folders in one without files beside them."""
    if list_folder(folder, deep=False).files:
        return frozenset()
    return frozenset(each.name for each in subfolders(folder))


def _alike(inside: dict[Path, frozenset[str]]) -> list[Path]:
    """Return folders that share names of folders inside, two at least."""
    for names in inside.values():
        alike = [each for each, others in inside.items() if len(names & others) > 1]
        shared = frozenset.intersection(*(inside[each] for each in alike))
        if len(alike) > 1 and shared:
            return alike
    return []


def _listed(names: Iterable[str]) -> str:
    return listed(sorted(names), _SHOWN)
