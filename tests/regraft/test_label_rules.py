import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from regraft.label_rules import HOLDOUT_SHARE, MAX_LABEL_LENGTH, check_label, image_hash, is_holdout, nfc


@settings(max_examples=300)
@given(label=st.text(max_size=MAX_LABEL_LENGTH + 10))
def test_a_label_that_is_accepted_can_be_a_folders_name(label: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    is_one_line_of_one_folder(label, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("letter", ["x", "é", "蜂", "🐝"])
def test_the_longest_label_can_be_a_folders_name_in_any_script(letter: str, tmp_path: Path) -> None:
    for length in range(1, MAX_LABEL_LENGTH + 1):
        is_one_line_of_one_folder(letter * length, tmp_path)


def is_one_line_of_one_folder(label: str, root: Path) -> None:
    try:
        check_label(label)
    except InvalidRequestError:
        return
    folder = root / "labels" / label
    folder.mkdir(parents=True, exist_ok=True)
    assert folder.resolve().parent == (root / "labels").resolve()
    assert len(label.splitlines()) == 1


@pytest.mark.parametrize("label", ["Möwe", "Ångström", "한국어", "ế", "roses"])
def test_a_label_has_one_form_however_it_was_typed(label: str) -> None:
    every = {unicodedata.normalize(form, label) for form in ("NFC", "NFD")}

    assert {nfc(each) for each in every} == {unicodedata.normalize("NFC", label)}


@given(text=st.text())
def test_the_one_form_of_a_label_stays_as_it_is(text: str) -> None:
    assert nfc(nfc(text)) == nfc(text)


def test_the_holdout_is_about_a_fifth_of_all_pictures() -> None:
    hashes = [image_hash(str(number).encode()) for number in range(20_000)]

    share = sum(map(is_holdout, hashes)) / len(hashes)

    assert HOLDOUT_SHARE == 0.2
    assert share == pytest.approx(0.2, abs=0.012)  # more than four standard deviations


@pytest.mark.parametrize(
    ("sha256", "expected"),
    [("0" * 64, True), ("f" * 64, False), ("3333333" + "3" + "f" * 56, True), ("3333333" + "4" + "0" * 56, False)],
)
def test_a_hash_belongs_to_the_holdout_for_ever(sha256: str, expected: bool) -> None:
    assert is_holdout(sha256) is expected


@settings(max_examples=100)
@given(data=st.binary())
def test_the_holdout_is_a_pure_function_of_the_hash(data: bytes) -> None:
    sha256 = image_hash(data)

    assert is_holdout(sha256) == is_holdout(sha256)
    assert is_holdout(sha256) == is_holdout(sha256[:8] + "0" * 56)
    assert is_holdout(sha256) == (int(sha256[:8], 16) / 2**32 < 0.2)
