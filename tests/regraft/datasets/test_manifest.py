import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.datasets.manifest import COLUMNS, is_manifest, read_manifest
from regraft.errors import InvalidRequestError

Rows = Sequence[Mapping[str, object]]


def as_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)


def as_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_parquet(path: Path, rows: Rows) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {".csv": as_csv, ".jsonl": as_jsonl, ".parquet": as_parquet}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures, as far as their names go."""
    (tmp_path / "deep").mkdir()
    for name in ("a.jpg", "deep/b.jpg"):
        (tmp_path / name).write_bytes(b"a picture")
    return tmp_path


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_field_is_read_from_every_kind_of_list(folder: Path, suffix: str) -> None:
    row = {"file": "a.jpg", "label": "cat", "split": "val", "group": "p1", "source": "zoo", "weight": 0.5}
    WRITERS[suffix](folder / f"list{suffix}", [{**row, "annotator": "ada", "request_id": "r1"}])

    (file,) = read_manifest(folder / f"list{suffix}").files

    assert file.path == folder / "a.jpg"
    assert (file.label, file.split, file.group, file.source, file.weight) == ("cat", "val", "p1", "zoo", 0.5)
    assert (file.annotator, file.request_id) == ("ada", "r1")


# Columns: a header as people write it.
HEADERS = [
    ("image", "class"),
    ("Filename", "Label"),
    ("file_name", "class_name"),
    ("FilePath", "Category"),
    ("image-path", "target"),
    ("path", "label name"),
]


@pytest.mark.parametrize("header", HEADERS, ids=" ".join)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_have_any_common_name(folder: Path, header: tuple[str, str], delimiter: str) -> None:
    (folder / "list.csv").write_text(f"{delimiter.join(header)}\ndeep/b.jpg{delimiter}cat\n")

    (file,) = read_manifest(folder / "list.csv").files

    assert (file.path, file.label) == (folder / "deep/b.jpg", "cat")


@given(st.sampled_from([(name, column) for name, columns in COLUMNS.items() for column in columns]), st.data())
def test_a_columns_name_may_be_spelt_with_anything_between_its_words(
    tmp_path_factory: pytest.TempPathFactory, named: tuple[str, str], data: st.DataObject
) -> None:
    name, column = named
    between = data.draw(st.sampled_from(["", "_", "-", " "]))
    spelt = data.draw(st.sampled_from([str.upper, str.lower, str.title]))(column).replace(" ", between)
    folder = tmp_path_factory.mktemp("lists")
    (folder / "1").touch()
    row = {"file": "1", "label": "1", spelt: "1"} if name not in ("file", "label") else {"file": "1", spelt: "1"}
    if name == "file":
        row = {spelt: "1", "label": "1"}
    as_jsonl(folder / "list.jsonl", [row])

    (file,) = read_manifest(folder / "list.jsonl").files

    assert vars(file)["path" if name == "file" else name] in ("1", 1.0, folder / "1")


def test_a_class_by_its_name_goes_before_one_by_its_number(folder: Path) -> None:
    as_jsonl(folder / "list.jsonl", [{"file": "a.jpg", "label": 3, "label_name": "roses"}])

    assert read_manifest(folder / "list.jsonl").files[0].label == "roses"


@pytest.mark.parametrize(("value", "label"), [(3, "3"), (3.0, "3"), (" cat ", "cat"), (None, ""), (float("nan"), "")])
def test_a_label_may_be_a_number_as_programs_write_them(folder: Path, value: object, label: str) -> None:
    as_jsonl(folder / "list.jsonl", [{"file": "a.jpg", "label": value}])

    assert read_manifest(folder / "list.jsonl").files[0].label == label


def test_paths_of_a_list_from_windows_are_understood(folder: Path) -> None:
    (folder / "list.csv").write_text("file,label\ndeep\\b.jpg,cat\n")

    assert read_manifest(folder / "list.csv").files[0].path == folder / "deep/b.jpg"


def test_columns_that_mean_nothing_are_named(folder: Path) -> None:
    (folder / "list.csv").write_text("file,label,width,gruop\na.jpg,cat,500,p1\n")

    assert read_manifest(folder / "list.csv").unused == ("width", "gruop")


# Columns: the kind of list, a bad line of it, and what is said of that.
BAD_LINES = {
    "no such file": (".csv", "nowhere.jpg,cat,1", "there is no file"),
    "no file": (".csv", ",cat,1", "names neither a file nor a request_id"),
    "too many fields": (".csv", "a.jpg,cat,1,2", "has more fields than the first line names"),
    "a weight of nothing": (".csv", "a.jpg,cat,0", "weight '0': need a number above 0"),
    "a weight that is no number": (".csv", "a.jpg,cat,much", "weight 'much': need a number above 0"),
    "an endless weight": (".csv", "a.jpg,cat,inf", "weight 'inf': need a number above 0"),
    "a quote in the middle": (".csv", '"a"b.jpg,cat,1', "expected after"),
    "a name that is too long": (".csv", "x" * 300 + ",cat,1", "there is no file"),
    "no JSON": (".jsonl", "{", "is no JSON"),
    "no object": (".jsonl", "[]", "is no object"),
    "a list for a label": (".jsonl", '{"file": "a.jpg", "label": ["cat"]}', "label is no text"),
    "a truth for a label": (".jsonl", '{"file": "a.jpg", "label": true}', "label is no text"),
}


@pytest.mark.parametrize(("suffix", "line", "complaint"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_the_others_are_read(folder: Path, suffix: str, line: str, complaint: str) -> None:
    good = ["a.jpg,cat,1", "deep/b.jpg,dog,2"]
    lines = ["file,label,weight", good[0], line, good[1]]
    if suffix == ".jsonl":
        lines = [json.dumps({"file": text.split(",")[0], "label": text.split(",")[1]}) for text in good]
        lines = [lines[0], "", line, lines[1]]
    path = folder / f"list{suffix}"
    path.write_text("\n".join(lines) + "\n")

    manifest = read_manifest(path)

    assert [file.label for file in manifest.files] == ["cat", "dog"]
    assert [line.place for line in manifest.bad] == ["line 3"]
    assert complaint in manifest.bad[0].reason


def test_bytes_that_are_no_text_spoil_only_their_line(folder: Path) -> None:
    (folder / "list.csv").write_bytes(b"file,label\ncaf\xe9.jpg,cat\na.jpg,cat\n")

    manifest = read_manifest(folder / "list.csv")

    assert len(manifest.files) == 1
    assert [line.place for line in manifest.bad] == ["line 2"]


def test_a_list_without_a_good_line_is_refused_by_the_first_bad_one(folder: Path) -> None:
    (folder / "list.csv").write_text("file,label\n1.jpg,cat\n2.jpg,cat\n")

    with pytest.raises(InvalidRequestError, match=r"list\.csv, line 2: there is no file .*1\.jpg"):
        read_manifest(folder / "list.csv")


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet"])
def test_what_is_no_such_list_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")

    with pytest.raises(InvalidRequestError, match=name):
        read_manifest(folder / name)


def test_a_parquet_file_may_have_pictures_in_columns_that_are_not_read(folder: Path) -> None:
    rows = [{"path": "a.jpg", "label": 1, "thumbnail": b"\0" * 100}, {"path": "gone.jpg", "label": 2, "thumbnail": b""}]
    as_parquet(folder / "list.parquet", rows)

    manifest = read_manifest(folder / "list.parquet")

    assert [(file.label, file.place) for file in manifest.files] == [("1", "row 1")]
    assert [line.place for line in manifest.bad] == ["row 2"]


@pytest.mark.parametrize("name", ["list.CSV", "list.tsv", "list.ndjson", "list.Parquet"])
def test_a_list_is_known_by_its_ending(folder: Path, name: str) -> None:
    (folder / name).touch()

    assert is_manifest(folder / name)
    assert not is_manifest(folder / "a.jpg")
    assert not is_manifest(folder)


@given(st.binary(max_size=200), st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_no_bytes_make_it_fail_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("lists") / f"list{suffix}"
    path.write_bytes(content)

    with pytest.raises(InvalidRequestError):
        read_manifest(path)
