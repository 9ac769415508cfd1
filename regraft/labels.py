"""What may be a label."""

from typing import Final

from regraft.errors import InvalidRequestError

MAX_LABEL_LENGTH: Final = 100
_MAX_FILE_NAME_BYTES: Final = 255


def check_label(label: str) -> None:
    """Check that a label can be a folder's name, a line in a table and a metric.

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
