import zipfile
from pathlib import Path

import pytest

from regraft.datasets.unlabelled_files import find_unlabelled
from regraft.errors import InvalidRequestError


def packed(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_a_folder_is_searched_to_its_depths_and_each_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/b.jpg").write_bytes(b"bb")
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / ".hidden").write_bytes(b"nobody's")

    found = find_unlabelled([tmp_path, tmp_path / "a.jpg"])

    assert [(file.name, file.size_bytes, file.read()) for file in found.files] == [
        (str(tmp_path / "a.jpg"), 1, b"a"),
        (str(tmp_path / "deep/er/b.jpg"), 2, b"bb"),
    ]
    assert found.bad == ()


def test_an_archive_is_read_entry_by_entry_whatever_they_are_called(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "all.zip", **{"../../up.png": b"up", "x/a.png": b"a", "__MACOSX/x": b"", ".DS_Store": b""}
    )

    found = find_unlabelled([archive])

    assert [(file.name, file.size_bytes) for file in found.files] == [
        (f"{archive}/../../up.png", 2),
        (f"{archive}/x/a.png", 1),
    ]
    assert [file.read() for file in found.files] == [b"up", b"a"]
    assert [path.name for path in tmp_path.iterdir()] == ["all.zip"]


def test_an_entry_that_is_damaged_is_an_error_of_that_file_alone(tmp_path: Path) -> None:
    archive = packed(tmp_path / "all.zip", **{"a.png": b"a" * 1000, "b.png": b"b" * 1000})
    data = bytearray(archive.read_bytes())
    data[40] ^= 0xFF
    archive.write_bytes(data)

    first, second = find_unlabelled([archive]).files

    with pytest.raises(OSError, match=r"Bad CRC-32|invalid|Error"):
        first.read()
    assert second.read() == b"b" * 1000


def test_a_link_to_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")

    found = find_unlabelled([tmp_path])

    assert [line.place for line in found.bad] == [str(tmp_path / "gone.jpg")]


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="there are no files in it"):
        find_unlabelled([tmp_path])
    with pytest.raises(InvalidRequestError, match="there is no such file or folder"):
        find_unlabelled([tmp_path / "nowhere"])
