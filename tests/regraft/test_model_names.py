import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from regraft.model_names import MAX_NAME_BYTES, MAX_NAME_LENGTH, derive_name, is_model_name, model_name
from tests.training.conftest import in_a_child

NAMES = ["热狗", "ホットドッグ", "핫도그", "حصان", "סוס", "कुत्ता", "ஹாட்", "ไก่", "Möwe", "ёж", "x٣", "v1.2_b-3", "𠮷"]
REFUSED = {
    "nothing": "",
    "a hidden file": ".热狗",
    "a mark first": "\u0308a",
    "a space": "热 狗",
    "an ideographic space": "热\u3000狗",
    "a separator": "热/狗",
    "a colon, which is before a version": "热:狗",
    "a control character": "热\u0007",
    "a line break": "热\n",
    "text that runs the other way": "a\u202egpj",
    "an isolate": "\u2066a",
    "a joiner that nobody sees": "a\u200db",
    "a byte order mark": "a\ufeff",
    "a letter that nobody sees": "a\u3164",
    "a mark that nobody sees": "a\ufe0f",
    "a symbol": "a☃",
    "an emoji": "🌭",
    "a currency": "a€",
    "a slash of another width": "a\uff0fb",
    "half a letter": "a\ud800",
    "no character at all": "a\uffff",
    "one for private use": "a\ue000",
    "too many letters": "热" * 65,
    "too many bytes": "𠮷" * 49,
}


@pytest.mark.parametrize("name", NAMES)
def test_letters_digits_and_marks_of_any_script_make_a_name(name: str) -> None:
    assert model_name(name) == name
    assert model_name(unicodedata.normalize("NFD", name)) == name
    assert is_model_name(name)


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_what_is_no_name_is_refused_with_what_is_one(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"model name .*: use 1 to 64 letters and digits of any script") as no:
        model_name(name)

    assert str(no.value).encode(errors="backslashreplace").decode().isprintable()
    assert not is_model_name(name)


@given(st.text())
def test_every_name_is_a_visible_folder_that_stays_where_it_is_put(text: str) -> None:
    try:
        name = model_name(text)
    except InvalidRequestError:
        return
    assert Path(name).name == name
    assert name.isprintable()
    assert not name.startswith((".", "-"))
    assert len(os.fsencode(name)) <= MAX_NAME_BYTES
    assert model_name(name) == name


@given(st.text())
def test_whatever_a_text_is_what_is_called_after_it_is_a_name_or_nothing(text: str) -> None:
    name = derive_name(text)

    assert not name or model_name(name) == name
    assert len(name) <= MAX_NAME_LENGTH


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my photos", "my-photos"),
        ("热狗 (2)", "热狗-2"),
        ("__热狗__", "热狗"),
        ("\u0308a", "a"),
        ("Mo\u0308wen", "Möwen"),
        ("🌭", ""),
        ("热" * 70, "热" * 64),
        ("𠮷" * 64, "𠮷" * 48),
    ],
)
def test_a_model_is_called_after_what_can_be_in_a_name(text: str, name: str) -> None:
    assert derive_name(text) == name


def test_a_process_whose_files_cannot_be_called_so_says_what_to_set() -> None:
    """As in a locale of Latin letters."""
    script = """
from regraft.errors import InvalidRequestError
from regraft.model_names import model_name
try:
    print(model_name("\\u70ed\\u72d7"))
except InvalidRequestError as error:
    print(ascii(str(error)))
"""
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}

    child = in_a_child(["-c", script], environment)

    assert "set PYTHONUTF8=1" in child.stdout, child.stdout + child.stderr
