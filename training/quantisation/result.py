"""What ``regraft models quantise`` made, beside what it was made of."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regraft.model.card import ModelCard
from regraft.stores.models import MODEL_FILE


@dataclass(frozen=True)
class Side:
    """One of the two versions; accuracy on the holdout, None where there is none; ``ms`` an image on one thread."""

    precision: str
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    mb: float
    ms: float


@dataclass(frozen=True)
class Quantised:
    """What became of it.

    Attributes:
        agreement: share of holdout images that both versions answer alike; None where there are none.
        objections: of the gate against the new version; empty where it has none.
        promoted: whether it is the champion now.
    """

    name: str
    version: int
    parent_version: int
    path: Path
    holdout_images: int
    agreement: float | None
    fp32: Side
    int8: Side
    objections: tuple[str, ...]
    promoted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "path": str(self.path), "speed_up": round(self.fp32.ms / self.int8.ms, 3)}


def side_of(card: ModelCard, folder: Path, ms: float) -> Side:
    """Return the figures of a version, given its milliseconds."""
    metrics, mb = card.metrics, round((folder / MODEL_FILE).stat().st_size / 1e6, 3)
    if metrics is None:
        return Side(card.backbone.precision, None, None, mb, ms)
    return Side(card.backbone.precision, metrics.accuracy, metrics.accuracy_interval, mb, ms)
