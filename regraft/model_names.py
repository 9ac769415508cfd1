"""Names of models, in any script: checking, and deriving from other text.

A name is a folder on every kind of file system, a label of metrics, a key in the database, and part of NAME:VERSION.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from regraft.errors import InvalidRequestError
from regraft.label_rules import nfc

MAX_NAME_LENGTH: Final = 64
MAX_NAME_BYTES: Final = 192
"""Bytes in UTF-8; with an ending it is still a file's name everywhere."""

_BESIDE_LETTERS: Final = "._-"
# Letters and marks that show nothing: two names that look alike would be two models.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def model_name(text: str) -> str:
    """Return a model's name in its one form, NFC.

    Raises:
        InvalidRequestError: no model can be called so; the text says what can be.
    """
    name = nfc(text)
    if not _is_name(name):
        raise InvalidRequestError(
            f"model name {text!r}: use 1 to {MAX_NAME_LENGTH} letters and digits of any script, '.', '_' or '-', "
            f"{MAX_NAME_BYTES} bytes at most, starting with a letter or digit"
        )
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"model name {text!r}: the files of this process are named in {error.encoding}, which lacks "
            "such letters: set PYTHONUTF8=1, or a locale of UTF-8"
        ) from error
    return name


def is_model_name(name: str) -> bool:
    """Return whether it is a model's name as it is."""
    return name == nfc(name) and _is_name(name)


def derive_name(text: str) -> str:
    """Return a model's name made from a text, empty if impossible."""
    parts = "".join(letter if _is_part(letter) else " " for letter in nfc(text)).split()
    name = "-".join(parts).lstrip(_BESIDE_LETTERS)
    while name and not _begins_well(name):
        name = name[1:].lstrip(_BESIDE_LETTERS)
    name = name[:MAX_NAME_LENGTH]
    while len(name.encode()) > MAX_NAME_BYTES:
        name = name[:-1]
    return name.rstrip(_BESIDE_LETTERS)


def case_variant(name: str, others: Iterable[str]) -> str:
    """Return another name that a file system may take for this one."""
    return next((other for other in others if other != name and other.casefold() == name.casefold()), "")


def _is_name(name: str) -> bool:
    fits = 0 < len(name) <= MAX_NAME_LENGTH and len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    return fits and _begins_well(name) and all(map(_is_part, name))


def _begins_well(name: str) -> bool:
    return unicodedata.category(name[0])[0] in "LN"


def _is_part(letter: str) -> bool:
    if letter in _BESIDE_LETTERS:
        return True
    return unicodedata.category(letter)[0] in "LMN" and not _UNSEEN.match(letter)
