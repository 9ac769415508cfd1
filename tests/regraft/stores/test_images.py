from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from regraft.errors import InvalidRequestError, MissingPackageError, StorageError
from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.images import ImageFiles, images_at
from regraft.stores.labels import AddOutcome

DATA = b"picture" * 50
SHA256 = image_hash(DATA)


@pytest.fixture(params=["folder", "file://", "memory://"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, the URL of one, and the URL of an object store."""
    yield {"folder": str(tmp_path), "file://": f"file://{tmp_path}", "memory://": "memory://bucket"}[request.param]
    MemoryFileSystem.store.clear()


@pytest.fixture
def files(place: str) -> ImageFiles:
    return images_at(place)


def test_a_picture_that_is_kept_is_found_by_its_hash(files: ImageFiles) -> None:
    assert not files.file(SHA256).exists()

    files.keep(SHA256, DATA)

    assert files.file(SHA256).exists()
    assert files.file(SHA256).read_bytes() == DATA


def test_keeping_a_picture_twice_changes_nothing(files: ImageFiles) -> None:
    files.keep(SHA256, DATA)
    files.keep(SHA256, DATA, durably=False)

    assert files.file(SHA256).read_bytes() == DATA


def test_a_picture_can_be_removed_and_kept_again(files: ImageFiles) -> None:
    files.keep(SHA256, DATA, durably=False)

    files.file(SHA256).unlink()

    assert not files.file(SHA256).exists()
    files.file(SHA256).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        files.file(SHA256).unlink()
    with pytest.raises(FileNotFoundError):
        files.file(SHA256).read_bytes()
    files.keep(SHA256, DATA)
    assert files.file(SHA256).read_bytes() == DATA


def test_a_url_of_a_folder_is_that_folder(tmp_path: Path) -> None:
    images_at(f"file://{tmp_path}").keep(SHA256, DATA)

    assert (tmp_path / SHA256[:2] / SHA256).read_bytes() == DATA


def test_an_object_that_was_cut_short_is_written_again() -> None:
    files = images_at("memory://bucket")
    files.file(SHA256).write_bytes(DATA[:10])

    files.keep(SHA256, DATA)

    assert files.file(SHA256).read_bytes() == DATA
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize(
    ("url", "error", "complaint"),
    [
        ("nonsense://bucket", InvalidRequestError, "nonsense://bucket: Protocol not known"),
        ("gs://bucket", MissingPackageError, "gs://bucket: Please install gcsfs"),
    ],
)
def test_a_url_that_nothing_here_can_open_is_said(url: str, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        images_at(url)


class BrokenFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An object store whose driver fails with an exception of its own."""

    protocol = "broken"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **rest: object) -> None:  # noqa: ARG002 - as its base
        raise RuntimeError("the bucket went away")


def test_an_object_store_that_fails_is_a_storage_error_and_nothing_is_recorded(tmp_path: Path) -> None:
    fsspec.register_implementation("broken", BrokenFileSystem, clobber=True)
    store = ExamplesStore(tmp_path, images_url="broken://bucket")

    with pytest.raises(StorageError, match="cannot keep the image: the bucket went away"):
        store.add("colours", DATA, "red")

    assert store.labels.count("colours") == 0
    store.close()


def test_examples_at_a_url_keep_their_locks_and_database_in_the_model_store(tmp_path: Path) -> None:
    store = open_examples(tmp_path, "memory://bucket/pictures/")

    assert store.add("colours", DATA, "red") == AddOutcome.ACCEPTED

    assert store.image_file(SHA256).read_bytes() == DATA
    assert MemoryFileSystem().find("/bucket") == [f"/bucket/pictures/images/{SHA256[:2]}/{SHA256}"]
    assert (tmp_path / ".examples/examples.sqlite").exists()
    assert (tmp_path / ".examples/locks").is_dir()
    store.close()
    MemoryFileSystem.store.clear()


def test_examples_are_kept_inside_the_model_store_unless_another_folder_is_given(tmp_path: Path) -> None:
    for place in ("", str(tmp_path / "elsewhere")):
        store = open_examples(tmp_path / "store", place)
        store.add("colours", DATA, "red")
        store.close()

    assert (tmp_path / "store/.examples/images" / SHA256[:2] / SHA256).exists()
    assert (tmp_path / "elsewhere/images" / SHA256[:2] / SHA256).exists()
