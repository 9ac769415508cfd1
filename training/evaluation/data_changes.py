"""Changes between the data of two versions."""

from dataclasses import asdict, dataclass
from typing import Any

from regraft.label_rules import nfc
from training.head.features import Features


@dataclass(frozen=True)
class Relabelled:
    """A picture that has another label now."""

    sha256: str
    before: str
    now: str


@dataclass(frozen=True)
class DataChanges:
    """Pictures by hash, in ascending order.

    Attributes:
        added: hash to label.
        removed: likewise, as it was.
        moved: pictures that were training images and are holdout now, or the other way round.
    """

    added: dict[str, str]
    removed: dict[str, str]
    relabelled: tuple[Relabelled, ...]
    moved: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def data_changes(before: Features, now: Features) -> DataChanges:
    """Compare the pictures, labels and splits of two versions."""
    old, new = _by_hash(before), _by_hash(now)
    both = sorted(old.keys() & new.keys())
    return DataChanges(
        {sha256: new[sha256][0] for sha256 in sorted(new.keys() - old.keys())},
        {sha256: old[sha256][0] for sha256 in sorted(old.keys() - new.keys())},
        tuple(Relabelled(name, old[name][0], new[name][0]) for name in both if old[name][0] != new[name][0]),
        tuple(name for name in both if old[name][1] != new[name][1]),
    )


def _by_hash(features: Features) -> dict[str, tuple[str, bool]]:
    return {
        sha256: (nfc(features.labels[index]), bool(is_holdout))
        for sha256, index, is_holdout in zip(features.sha256, features.label_index, features.is_holdout, strict=True)
    }
