import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from regraft.label_rules import MAX_LABEL_LENGTH, check_label, one_form


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

    assert {one_form(each) for each in every} == {unicodedata.normalize("NFC", label)}


@given(text=st.text())
def test_the_one_form_of_a_label_stays_as_it_is(text: str) -> None:
    assert one_form(one_form(text)) == one_form(text)
