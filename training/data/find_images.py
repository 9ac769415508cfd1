"""Files of a version's pictures, found by their hashes."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from regraft.datasets.folders import list_folder
from regraft.errors import DatasetError
from regraft.files import text_of
from regraft.label_rules import image_hash
from regraft.progress import Progress
from regraft.stores.images import ImageFile, example_images


def find_images(wanted: Sequence[str], data: Path | None, examples: str, progress: Progress) -> dict[str, ImageFile]:
    """Find the file of every picture by its hash, in the order given.

    Args:
        wanted: image hashes.
        data: a folder that has them, however they lie in it; None where all came over gRPC.
        examples: the folder or URL of the examples store.
        progress: told the stage ``scan``.

    Raises:
        DatasetError: one is nowhere.
    """
    if data is not None and not data.is_dir():
        raise DatasetError(f"--data: {data}: not a folder")
    paths = list_folder(data).files if data else []
    paths_by_hash: dict[str, Path] = {}
    progress("scan", 0, len(paths))
    for done, path in enumerate(paths, start=1):
        with suppress(OSError):  # what cannot be read will be missing
            paths_by_hash[image_hash(path.read_bytes())] = path
        progress("scan", done, len(paths))
    stored = example_images(examples)
    files: dict[str, ImageFile] = {sha256: paths_by_hash.get(sha256, stored.file(sha256)) for sha256 in wanted}
    missing = [sha256 for sha256, file in files.items() if not file.exists()]
    if missing:
        place = f"in {text_of(data)} (--data)" if data else "in a folder (--data was not given)"
        raise DatasetError(
            f"{len(missing)} of the version's {len(files)} images are neither {place} nor among "
            f"the labelled examples in {examples} (--examples): all of them are needed"
        )
    return files
