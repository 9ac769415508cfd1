"""Limits of the gate, which decides whether a retrained version goes live."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

from pydantic import Field

from regraft.errors import InvalidRequestError

MAX_DROP: Final = 0.5
MAX_CLASS_DROP: Final = 5.0
MAX_SLICE_DROP: Final = 5.0
_DIGITS: Final = 9
"""Of percentage points, so that 100 * 0.007 is 0.7."""


@dataclass(frozen=True)
class Margins:
    """The largest losses in percentage points: of all, a class, a source."""

    drop: float
    class_drop: float
    slice_drop: float


@dataclass(frozen=True)
class GateLimits:
    """Limits of the gate in percentage points, None if unset.

    A suspect is a label that is likely wrong; more of them count where the difference is beyond chance.
    """

    max_drop: Annotated[
        float | None, Field(description=f"Points of holdout accuracy to lose. Default: {MAX_DROP:g}, beyond chance.")
    ] = None
    max_class_drop: Annotated[
        float | None, Field(description=f"Points of any class's recall. Default: {MAX_CLASS_DROP:g}, beyond chance.")
    ] = None
    max_slice_drop: Annotated[
        float | None, Field(description=f"Points on any source's pictures. Default: {MAX_SLICE_DROP:g}, beyond chance.")
    ] = None
    min_accuracy: Annotated[float, Field(description="Floor of holdout accuracy, in percent.")] = 0.0
    min_class_recall: Annotated[float, Field(description="Floor of any class's recall, in percent.")] = 0.0
    max_suspects: Annotated[
        float | None, Field(description="Points more of new labels than of old that may be likely wrong. Default: any.")
    ] = None
    min_slice_accuracy: Annotated[float, Field(description="Floor on any source's pictures, in percent.")] = 0.0

    @staticmethod
    def of(settings: Mapping[str, Any]) -> "GateLimits":
        """Return the limits that a job's settings state; all others nobody typed."""
        return GateLimits(**{name: settings[name] for name in LIMIT_NAMES if name in settings})

    @property
    def margins(self) -> Margins:
        """The margins that a loss is tested against."""
        return Margins(
            MAX_DROP if self.max_drop is None else self.max_drop,
            MAX_CLASS_DROP if self.max_class_drop is None else self.max_class_drop,
            MAX_SLICE_DROP if self.max_slice_drop is None else self.max_slice_drop,
        )


LIMIT_NAMES: Final = tuple(field.name for field in fields(GateLimits))


def check_limits(stated: Mapping[str, float]) -> None:
    """Refuse limits, by name, that are no share of 100.

    Raises:
        InvalidRequestError: one of them.
    """
    for name, points in stated.items():
        if not 0 <= points <= 100:
            raise InvalidRequestError(f"{name}: {points} percentage points; need 0 to 100")


def to_shares(points: Mapping[str, float | None]) -> dict[str, float]:
    """Convert the limits that people stated to those of messages.

    Raises:
        InvalidRequestError: one of them is no share of 100.
    """
    stated = {name: value for name, value in points.items() if value is not None}
    check_limits(stated)
    return {name: value / 100 for name, value in stated.items()}


def to_points(shares: Mapping[str, float], within: str = "limits.") -> dict[str, float]:
    """Convert limits of messages back, to the very number typed.

    Errors name the field ``within`` a request.

    Raises:
        InvalidRequestError: one of them is no share.
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InvalidRequestError(
                f"{within}{name}: {share:g} is no share; need 0 to 1, where 0.05 is 5 percentage points"
            )
    return {name: round(100 * share, _DIGITS) for name, share in shares.items()}
