"""Results of an export."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExportSide:
    """One of the two files.

    Attributes:
        accuracy: on the validation images.
        accuracy_interval: 95 % Wilson score interval.
        log_loss: mean negative log probability of the true label, in nats.
        calibration_error: expected calibration error, 0 to 1.
        mb: size of the model.
        ms: an image on one thread here, from its crop, or from its bytes where the export takes those; None where it is
            for another CPU.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    log_loss: float
    calibration_error: float
    mb: float
    ms: float | None


@dataclass(frozen=True)
class Proof:
    """Agreement of an exported file with the served one.

    Attributes:
        images: number of validation images.
        agreement: share of images with the same first label.
        largest_difference: of any probability.
    """

    images: int
    agreement: float
    largest_difference: float
    served: ExportSide
    exported: ExportSide

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy that the export loses; negative where it gains."""
        return 100 * (self.served.accuracy - self.exported.accuracy)


@dataclass(frozen=True)
class Export:
    """An exported version.

    Attributes:
        cpu: what int8 is for; None for the other formats.
        layers_in_float: the layers of an int8 backbone that were left in float, the worst first.
        notes: what a reader of the figures must know, a sentence each.
    """

    name: str
    version: int
    format: str
    folder: Path
    model: Path
    cpu: str | None
    proof: Proof
    layers_in_float: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        served, exported = self.proof.served, self.proof.exported
        return {
            **asdict(self),
            "folder": str(self.folder),
            "model": str(self.model),
            "points_lost": round(self.proof.points_lost, 3),
            "times_as_fast": round(served.ms / exported.ms, 3) if served.ms and exported.ms else None,
            "share_of_size": round(exported.mb / served.mb, 3),
        }
