"""Rules for labels: checks, Unicode form, and the holdout by image hash."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from regraft.errors import InvalidRequestError

LabelPolicy: TypeAlias = Literal["open", "closed"]
"""Whether a server takes labels that its model does not know."""

HOLDOUT_SHARE: Final = 0.2
MAX_LABEL_LENGTH: Final = 100
MAX_NOTE_LENGTH: Final = 200
_MAX_FILE_NAME_BYTES: Final = 255
_HASH: Final = re.compile("[0-9a-f]{64}")


def nfc(label: str) -> str:
    """Return a label in Unicode's composed form (NFC).

    Macs take file names apart: their "Möwe" has a letter more than everybody else's, and looks the same.
    """
    return unicodedata.normalize("NFC", label)


def forms_of(label: str) -> list[str]:
    """Return both forms of a label; older rows have either."""
    return [unicodedata.normalize(form, label) for form in ("NFC", "NFD")]


def listed(names: Sequence[str], most: int) -> str:
    """Join the first names by commas, and count the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_label(label: str) -> None:
    """Check that a label can name folders, lines and metrics.

    Raises:
        InvalidRequestError: the text says why it cannot.
    """
    if not label.strip() or label != label.strip():
        raise InvalidRequestError("label: must not be empty, nor begin or end with a space")
    if len(label) > MAX_LABEL_LENGTH or len(label.encode(errors="replace")) > _MAX_FILE_NAME_BYTES:
        raise InvalidRequestError(
            f"label: {len(label)} characters; the limit is {MAX_LABEL_LENGTH}, and {_MAX_FILE_NAME_BYTES} bytes"
        )
    if not label.isprintable() or "/" in label or "\\" in label or label in {".", ".."}:
        raise InvalidRequestError(f"label {label!r}: control characters and path separators are not allowed")


def check_note(field: str, text: str, most: int = MAX_NOTE_LENGTH) -> None:
    """Check free text, such as the source of a label.

    It may be empty, or a line that can be shown and kept.

    Raises:
        InvalidRequestError: the text names the field and says why it cannot.
    """
    if len(text) > most:
        raise InvalidRequestError(f"{field}: {len(text)} characters; the limit is {most}")
    if not text.isprintable():
        raise InvalidRequestError(f"{field}: control characters are not allowed")


def image_hash(data: bytes) -> str:
    """Return the SHA-256 (hex) that names a picture."""
    return hashlib.sha256(data).hexdigest()


def check_hash(sha256: str) -> None:
    """Check that a text is the whole hash of a picture.

    Raises:
        InvalidRequestError: it is none.
    """
    if not _HASH.fullmatch(sha256):
        raise InvalidRequestError(f"sha256: {sha256[:80]!r} is no SHA-256: need 64 characters 0-9 and a-f")


def is_holdout(sha256: str) -> bool:
    """Tell by its hash alone whether a picture belongs to the holdout."""
    return int(sha256[:8], 16) < HOLDOUT_SHARE * 2**32
