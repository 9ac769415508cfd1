import os
from pathlib import Path

import pytest

from regraft.datasets.folders import list_folder, subfolders


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(root: Path, paths: list[Path]) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in paths)


def test_folders_are_looked_into_and_linked_ones_too(tmp_path: Path) -> None:
    write(tmp_path, "here/a.jpg", "here/inside/b.jpg", "elsewhere/c.jpg", "elsewhere/deep/d.jpg")
    (tmp_path / "here/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "here/e.jpg").symlink_to(tmp_path / "elsewhere/c.jpg")

    found = list_folder(tmp_path / "here")

    expected = ["a.jpg", "e.jpg", "inside/b.jpg", "linked/c.jpg", "linked/deep/d.jpg"]
    assert names(tmp_path / "here", found.files) == expected
    assert found.left_out == []
    assert names(tmp_path / "here", subfolders(tmp_path / "here")) == ["inside", "linked"]


def test_links_that_lead_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/to b").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b/to a").symlink_to(tmp_path / "a", target_is_directory=True)

    found = list_folder(tmp_path / "a")

    assert names(tmp_path, found.files) == ["a/1.jpg", "a/to b/2.jpg"]
    ((link, reason),) = found.left_out
    assert link == tmp_path / "a/to b/to a"
    assert reason == f"a link to {(tmp_path / 'a').resolve()}, which is looked into already"


def test_of_a_folder_and_a_link_to_it_the_folder_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path, "z/1.jpg")
    (tmp_path / "a").symlink_to("z", target_is_directory=True)

    found = list_folder(tmp_path)

    assert names(tmp_path, found.files) == ["z/1.jpg"]
    assert [path.name for path, _ in found.left_out] == ["a"]


def test_what_cannot_be_a_file_is_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "pipe")

    found = list_folder(tmp_path)

    assert found.files == []
    assert {path.name: reason for path, reason in found.left_out} == {
        "broken.jpg": "a link to gone.jpg, which is not there",
        "itself": "a link to itself, which is not there",
        "pipe": "neither a file nor a folder",
    }


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".thumbnails", "#recycle", "System Volume Information"]
)
def test_folders_that_other_programs_leave_are_passed_over(name: str, tmp_path: Path) -> None:
    write(tmp_path, f"{name}/a.jpg/SYNOPHOTO_THUMB_M.jpg", "a.jpg", f"inside/{name}/b.jpg")

    assert names(tmp_path, list_folder(tmp_path).files) == ["a.jpg"]
    assert names(tmp_path, subfolders(tmp_path)) == ["inside"]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._a.jpg", "desktop.ini", "ehthumbs.db", "Picasa.ini"])
def test_files_that_other_programs_leave_are_passed_over(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, "a.jpg")

    found = list_folder(tmp_path)

    assert (names(tmp_path, found.files), found.left_out) == (["a.jpg"], [])


def test_without_depth_only_what_lies_right_inside_counts(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "inside/b.jpg")
    (tmp_path / "broken").symlink_to("gone")

    found = list_folder(tmp_path, deep=False)

    assert names(tmp_path, found.files) == ["a.jpg"]
    assert [path.name for path, _ in found.left_out] == ["broken"]
