"""Crops of readable pictures; any other is left out."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regraft.errors import InvalidImageError
from regraft.files import text_of
from regraft.image.decode import decode_crop, upright_size
from regraft.image.spec import Crop, ImageSpec
from regraft.machine import cpu_budget
from regraft.stores.images import ImageFile

log = logging.getLogger("regraft.training")


def over_limits(files: Mapping[str, ImageFile]) -> dict[str, str]:
    """Return reasons by hash against pictures over today's size limits."""

    def complaint(file: ImageFile) -> str:
        try:
            upright_size(file.read_bytes())
        except (InvalidImageError, OSError) as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(cpu_budget()) as pool:
        complaints = dict(zip(files, pool.map(complaint, files.values()), strict=True))
    return {sha256: reason for sha256, reason in complaints.items() if reason}


def readable_crops(files: Iterable[tuple[str, ImageFile]], spec: ImageSpec) -> Iterator[tuple[str, Crop]]:
    """Yield hash and crop of each readable picture; log the others."""
    for sha256, file in files:
        try:
            crop = decode_crop(file.read_bytes(), spec)
        except (InvalidImageError, OSError) as error:
            log.warning("image %s (%s) is left out: %s", sha256, text_of(Path(str(file))), error)
            continue
        yield sha256, crop
