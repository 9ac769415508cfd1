"""Names that labels have now, after they were renamed, merged or removed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from regraft.label_rules import nfc


@dataclass(frozen=True)
class LabelChange:
    """One change of a label.

    Attributes:
        label: that was changed.
        new_label: what its pictures are called now; None: it was removed, and they with it.
        at: UTC, ISO 8601 with microseconds.
        annotator: who says so.
        why: for people.
        caller: who sent it, as the server saw it.
    """

    label: str
    new_label: str | None
    at: str = ""
    annotator: str = ""
    why: str = ""
    caller: str = ""

    def __str__(self) -> str:
        """Return a sentence on it, without a full stop."""
        by = f" by {self.annotator or self.caller}" if self.annotator or self.caller else ""
        became = "was removed" if self.new_label is None else f"is called {self.new_label!r}"
        return f"label {self.label!r} {became} since {self.at[:19]}{by}"


@dataclass(frozen=True)
class KnownLabels:
    """Labels of a version, and when they last followed changes."""

    labels: Sequence[str] = ()
    as_of: str = ""


NO_LABELS: Final = KnownLabels()


def called_now(label: str, changes: Iterable[LabelChange]) -> str | None:
    """Return what a label is called after changes; None: it was removed."""
    now = nfc(label)
    for change in changes:
        if change.label == now:
            if change.new_label is None:
                return None
            now = change.new_label
    return now
