import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from regraft.errors import InvalidRequestError, MissingPackageError, StorageError
from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.images import ImageFiles, ImageFolder, images_at
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


def test_a_file_is_kept_by_its_hash_and_survives_the_loss_of_the_original(
    files: ImageFiles, place: str, tmp_path: Path
) -> None:
    file = tmp_path / "somebodys.jpg"
    file.write_bytes(DATA)

    is_linked = files.keep_file(SHA256, file, DATA)
    assert files.keep_file(SHA256, file, DATA) is is_linked
    file.unlink()

    assert is_linked is not place.startswith("memory://")
    assert files.file(SHA256).read_bytes() == DATA
    assert list(tmp_path.rglob(".*")) == [], "nothing is left of the linking"


def test_a_link_to_a_picture_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.jpg").write_bytes(DATA)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real.jpg")

    assert ImageFolder(tmp_path / "images").keep_file(SHA256, tmp_path / "link.jpg", DATA)
    assert not ImageFolder(tmp_path / "images").file(SHA256).is_symlink()


def test_a_file_that_was_overwritten_since_it_was_read_is_copied_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "edited.jpg"
    file.write_bytes(b"edited just now")

    assert not ImageFolder(tmp_path / "images").keep_file(SHA256, file, DATA)
    assert ImageFolder(tmp_path / "images").file(SHA256).read_bytes() == DATA


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, which no link leads out of."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if Path(folder).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("memory is no file system of its own here")
        yield Path(folder)


def test_a_file_of_another_file_system_is_copied(tmp_path: Path, elsewhere: Path) -> None:
    (elsewhere / "a.jpg").write_bytes(DATA)
    files = ImageFolder(tmp_path / "images")
    files.check_room({SHA256: elsewhere / "a.jpg", "b" * 64: elsewhere / "gone.jpg"})

    assert not files.keep_file(SHA256, elsewhere / "a.jpg", DATA)
    assert files.file(SHA256).read_bytes() == DATA


def test_copies_that_would_fill_the_disk_are_not_begun(tmp_path: Path, elsewhere: Path) -> None:
    with (elsewhere / "huge.jpg").open("wb") as file:
        file.truncate(2**50)

    with pytest.raises(OSError, match=r"copies of the pictures take 1073741824 MB, and \d+ MB are free"):
        ImageFolder(tmp_path / "images").check_room({SHA256: elsewhere / "huge.jpg"})

    (tmp_path / "link.jpg").write_bytes(DATA)
    ImageFolder(tmp_path / "images").check_room({SHA256: tmp_path / "link.jpg", "b" * 64: elsewhere / "gone.jpg"})


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
