import io
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from regraft.errors import InvalidImageError, NotFoundError
from regraft.image.limits import DEFAULT_LIMITS
from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore
from serving.inference.shares import Shares
from serving.retraining.thumbnails import ThumbnailCache, Thumbnails
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.metric_samples import value_of
from tests.tiny import picture
from tests.waiting import asynchronous

RED, BLUE = picture("red"), picture("blue", side_px=400)
JPEG = b"a thumbnail of a thousand bytes" + bytes(1000) + b"\xff\xd9"
HASHES = [f"{number:064x}" for number in range(20)]


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[ExamplesStore]:
    with closing(ExamplesStore(tmp_path / "examples")) as store:
        for data in (RED, BLUE):
            store.add("colours", data, "red")
        yield store


def makers(
    examples: ExamplesStore,
    threads: Threads,
    folder: Path,
    memory: Shares | None = None,
    metrics: Metrics | None = None,
) -> Thumbnails:
    return Thumbnails(examples, ThumbnailCache(folder, 2**20), threads, DEFAULT_LIMITS, metrics or Metrics(), memory)


def size_of(thumbnail: bytes | Exception) -> tuple[int, int]:
    assert isinstance(thumbnail, bytes)
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.format == "JPEG"
        return image.size


@asynchronous
async def test_thumbnails_are_as_large_as_asked_for_and_never_larger_than_the_picture(
    examples: ExamplesStore, threads: Threads, tmp_path: Path
) -> None:
    found = await makers(examples, threads, tmp_path / "cache").get([image_hash(RED), image_hash(BLUE)], 64, "ada")

    assert size_of(found[image_hash(RED)]) == (16, 16)
    assert size_of(found[image_hash(BLUE)]) == (64, 64)


@asynchronous
async def test_a_picture_that_is_gone_or_half_there_harms_no_neighbour(
    examples: ExamplesStore, threads: Threads, tmp_path: Path
) -> None:
    half = BLUE[: len(BLUE) // 2]
    file = examples.image_file(image_hash(half))
    assert isinstance(file, Path)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(half)
    metrics = Metrics()
    maker = makers(examples, threads, tmp_path / "cache", metrics=metrics)
    await maker.get([image_hash(RED)], 64, "ada")
    found = await maker.get([image_hash(b"gone"), image_hash(RED), image_hash(half)], 64, "ada")

    assert isinstance(found[image_hash(b"gone")], NotFoundError)
    assert isinstance(found[image_hash(half)], InvalidImageError)
    assert size_of(found[image_hash(RED)]) == (16, 16)
    counts = {
        outcome: value_of(metrics.registry, "regraft_thumbnails_total", {"outcome": outcome})
        for outcome in ("cached", "made", "failed")
    }
    assert counts == {"cached": 1, "made": 1, "failed": 2}


@asynchronous
async def test_a_picture_too_large_for_the_memory_is_an_error_of_its_own_by_its_header(
    examples: ExamplesStore, threads: Threads, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (12_000, 9_000)).save(buffer, "PNG")
    huge = buffer.getvalue()
    examples.add("colours", huge, "red")
    maker = makers(examples, threads, tmp_path / "cache", Shares(64 * 2**20, 2))
    found = await maker.get([image_hash(huge), image_hash(RED)], 64, "ada")

    assert isinstance(found[image_hash(huge)], InvalidImageError)
    assert size_of(found[image_hash(RED)]) == (16, 16)


@asynchronous
async def test_a_thumbnail_is_made_once_and_outlives_picture_and_process(
    examples: ExamplesStore, threads: Threads, tmp_path: Path
) -> None:
    first = await makers(examples, threads, tmp_path / "cache").get([image_hash(BLUE)], 64, "ada")
    examples.image_file(image_hash(BLUE)).unlink()

    assert await makers(examples, threads, tmp_path / "cache").get([image_hash(BLUE)], 64, "ada") == first
    other = await makers(examples, threads, tmp_path / "cache").get([image_hash(BLUE)], 32, "ada")
    assert isinstance(other[image_hash(BLUE)], NotFoundError), "of another size it is another one"


def test_the_longest_unused_thumbnails_make_way(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path, 10 * len(JPEG))
    for sha256 in HASHES[:10]:
        cache.put(sha256, 64, JPEG)
    assert cache.get(HASHES[0], 64) == JPEG
    cache.put(HASHES[10], 64, JPEG)

    kept = [number for number in range(11) if cache.get(HASHES[number], 64)]
    assert kept == [0, *range(3, 11)]


def test_what_an_earlier_process_kept_counts_towards_the_bound(tmp_path: Path) -> None:
    earlier = ThumbnailCache(tmp_path, 100 * len(JPEG))
    for age, sha256 in enumerate(HASHES):
        earlier.put(sha256, 64, JPEG)
        (file,) = tmp_path.rglob(f"{sha256}.jpg")
        os.utime(file, (1e9 - age, 1e9 - age))
    later = ThumbnailCache(tmp_path, 10 * len(JPEG))
    later.put("f" * 64, 64, JPEG)

    assert sum(file.stat().st_size for file in tmp_path.rglob("*.jpg")) <= 10 * len(JPEG)
    assert later.get(HASHES[0], 64) == later.get("f" * 64, 64) == JPEG
    assert later.get(HASHES[-1], 64) is None, "the oldest of them"


def test_a_half_written_thumbnail_is_none(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path, 2**20)
    cache.put(HASHES[0], 64, JPEG[:-1])

    assert cache.get(HASHES[0], 64) is None


def test_without_room_nothing_is_kept(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path / "none", 0)
    cache.put(HASHES[0], 64, JPEG)

    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ThumbnailCache(tmp_path / "file", 2**20)
    cache.put(HASHES[0], 64, JPEG)

    assert cache.get(HASHES[0], 64) is None
