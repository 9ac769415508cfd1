"""Look at data before a training, by its own steps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from regraft.errors import DatasetError, InvalidImageError
from regraft.files import text_of
from regraft.image.decode import decode_crop, upright_size
from regraft.image.file_kinds import format_of
from regraft.image.spec import ImageSpec
from regraft.progress import Progress, silent
from regraft.read_ahead import map_ahead
from regraft.stores.embeddings import EmbeddingCache
from training.backbones.cache import ExportedBackbone
from training.data.dataset import Dataset, LabelledImage, check_trainable, scan
from training.data.file_listing import shown_path
from training.data.split import split_by_likeness
from training.evaluation.diagnose import named_pairs, small_pictures
from training.evaluation.duplicates import near_duplicates
from training.evaluation.findings import Pair
from training.head.features import Embedder, assemble

SHEET: Final = 24
"""The most pictures of a class on a contact sheet."""
_SHEETS: Final = 960
"""The most pictures on all of them."""


@dataclass(frozen=True)
class ClassCount:
    """Pictures of a class on each side, and skipped files."""

    label: str
    train: int
    holdout: int
    left_out: int


@dataclass(frozen=True)
class Spread:
    """Least, median and largest of figures."""

    least: int
    median: int
    most: int


@dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates to a backbone, the first of them."""

    backbone: str
    found: int
    across: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Look:
    """Counts, sizes, split and defects of the data.

    Attributes:
        data: the name of the folder or list.
        split: where the split comes from.
        classes: in the order of the labels.
        images: that take part.
        formats: how many there are of each.
        short_side_px: of the upright pictures; likewise ``long_side_px``.
        bytes: of the files.
        left_out: files that take no part, each with its reason.
        copies: how many of these are exact copies of a picture that takes part.
        near: where a backbone was asked.
        refused: why a training would refuse the data; empty where it would not.
        notes: what people should know.
        sheet: by label, pictures for a contact sheet, spread over the class.
    """

    data: str
    split: str
    classes: tuple[ClassCount, ...]
    images: int
    formats: dict[str, int]
    short_side_px: Spread
    long_side_px: Spread
    bytes: Spread
    left_out: tuple[tuple[str, str], ...]
    copies: int
    near: NearDuplicates | None
    refused: str
    notes: tuple[str, ...]
    sheet: dict[str, tuple[LabelledImage, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        fields = asdict(replace(self, sheet={}))
        del fields["sheet"]
        return fields | {"left_out": [{"file": file, "reason": reason} for file, reason in self.left_out]}


def look(
    data: Path,
    progress: Progress = silent,
    group_by: str = "",
    backbone: ExportedBackbone | None = None,
    cache: EmbeddingCache | None = None,
) -> Look:
    """Read all pictures of a folder or list, and decode each once.

    Args:
        data: as for `training.data.dataset.scan`, and ``group_by`` likewise.
        progress: told the stages ``scan``, ``look`` and ``embed``.
        group_by: empty for none.
        backbone: finds near-duplicates, which a training keeps together; None not to look for any.
        cache: of embeddings; needed beside a backbone.

    Raises:
        DatasetError: there are no pictures at all.
        InvalidRequestError: as `scan`.
    """
    dataset = scan(data, progress, group_by)
    spec = backbone.spec if backbone else ImageSpec()
    files, failures = _read(dataset, spec, progress)
    dataset = dataset.without_unreadable(failures, data)
    near = None
    if backbone and cache:
        dataset, near = _near(dataset, data, backbone, cache, progress)
    facts = [files[image.sha256] for image in dataset.images]
    smaller = sum(file.short_px < spec.crop_px for file in facts)
    small = (f"{smaller} pictures are smaller than the {spec.crop_px} px of the network's input.",) if smaller else ()
    return Look(
        data=text_of(Path(data.resolve().name)),
        split=dataset.how_split,
        classes=_classes(dataset),
        images=len(facts),
        formats=dict(Counter(file.kind for file in facts).most_common()),
        short_side_px=_spread([file.short_px for file in facts]),
        long_side_px=_spread([file.long_px for file in facts]),
        bytes=_spread([file.size_bytes for file in facts]),
        left_out=tuple((shown_path(entry.file, data), entry.reason) for entry in dataset.left_out),
        copies=sum(entry.is_copy for entry in dataset.left_out),
        near=near,
        refused=_refusal(dataset, data),
        notes=(*dataset.notes, *small),
        sheet=_sheet(dataset),
    )


@dataclass(frozen=True)
class _File:
    kind: str
    short_px: int
    long_px: int
    size_bytes: int


def _read(dataset: Dataset, spec: ImageSpec, progress: Progress) -> tuple[dict[str, _File], dict[str, str]]:
    """Read files by hash; return facts, and reasons of unreadable ones."""

    def read(image: LabelledImage) -> _File | str:
        try:
            data = image.path.read_bytes()
            decode_crop(data, spec)
        except (InvalidImageError, OSError) as error:
            return str(error)
        short, long = sorted(upright_size(data))
        return _File(format_of(data), short, long, len(data))

    files, failures = {}, {}
    for done, (image, result) in enumerate(zip(dataset.images, map_ahead(read, dataset.images), strict=True), start=1):
        if isinstance(result, str):
            failures[image.sha256] = result
        else:
            files[image.sha256] = result
        progress("look", done, len(dataset.images))
    return files, failures


def _near(
    dataset: Dataset, data: Path, backbone: ExportedBackbone, cache: EmbeddingCache, progress: Progress
) -> tuple[Dataset, NearDuplicates]:
    """Keep near-duplicates on one side of the split, and return both."""
    embedder = Embedder.of(backbone)
    files = {image.sha256: image.path for image in dataset.images}
    embeddings, failures = embedder.embed(files, cache, progress)
    dataset = dataset.without_unreadable(failures, data)
    rows = [(image.sha256, image.label, image.is_holdout) for image in dataset.images]
    features = assemble(
        dataset.labels, rows, embeddings, groups={image.sha256: image.group for image in dataset.images}
    )
    dataset, features = split_by_likeness(dataset, features)
    duplicates = near_duplicates(features.embedding, features.label_index, features.is_holdout)
    shown = {image.sha256: shown_path(image.path, data) for image in dataset.images}
    pairs = named_pairs(duplicates, features, shown)
    return dataset, NearDuplicates(backbone.name, duplicates.found, duplicates.across, pairs)


def _classes(dataset: Dataset) -> tuple[ClassCount, ...]:
    sides = Counter((image.label, image.is_holdout) for image in dataset.images)
    skipped = Counter(entry.label for entry in dataset.left_out)
    return tuple(ClassCount(label, sides[label, False], sides[label, True], skipped[label]) for label in dataset.labels)


def _spread(values: Sequence[int]) -> Spread:
    return Spread(min(values), int(np.median(values)), max(values))


def _refusal(dataset: Dataset, data: Path) -> str:
    try:
        check_trainable(dataset, data)
    except DatasetError as error:
        return str(error)
    return ""


def _sheet(dataset: Dataset) -> dict[str, tuple[LabelledImage, ...]]:
    """Pick pictures of each class at even distances by path."""
    most = max(1, min(SHEET, _SHEETS // len(dataset.labels)))
    by_label: dict[str, list[LabelledImage]] = {label: [] for label in dataset.labels}
    for image in sorted(dataset.images, key=lambda image: image.path):
        by_label[image.label].append(image)
    return {
        label: tuple(images[row] for row in np.unique(np.linspace(0, len(images) - 1, most).round().astype(int)))
        for label, images in by_label.items()
        if images
    }


def page(look: Look) -> str:
    """Render a look as a page of contact sheets; reads its pictures again."""
    from training.evaluation.report.page import templates  # noqa: PLC0415 - Jinja, which a look without a page spares

    shown = {image.sha256: image.path for images in look.sheet.values() for image in images}
    template = templates().get_template("look.html.j2")
    return template.render(found=look, thumbnails=small_pictures(shown), left_out=look.left_out)
