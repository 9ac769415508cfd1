"""What a comparison of backbones and strategies found, and what follows from it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

TOLERANCE: Final = 0.05
"""Sizes and times that differ by less count as equal: the clock is noisy, and each file has another card."""

_SAME_TIME: Final = 1.5


@dataclass(frozen=True)
class Row:
    """A model that was trained, and its figures.

    Attributes:
        strategy: that was asked for.
        carried_out: what ``auto`` decided for; else the same.
        weights: where the backbone's numbers came from.
        name: of the model in the comparison's store.
        model: its file, relative to the comparison's folder.
        report: likewise.
        accuracy: on the holdout; None, as the next two, where there are no holdout images.
        accuracy_interval: 95 % Wilson score interval.
        model_mb: size of the file, in millions of bytes.
        parameters: numbers in the file.
        ms: for one picture on one thread, see `training.speed`.
        seconds: from the folder of pictures to the published model, with nothing in any cache.
        stage_seconds: the same by stage.
        is_pareto: nothing else is at least as accurate, as small and as fast, and better in one of these.
    """

    backbone: str
    strategy: str
    carried_out: str
    weights: str
    name: str
    version: int
    model: str
    report: str
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    macro_f1: float | None
    model_mb: float
    parameters: int
    ms: float
    seconds: float
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    is_pareto: bool = False


@dataclass(frozen=True)
class Failure:
    """A combination that came to nothing, and the reason."""

    backbone: str
    strategy: str
    error: str


@dataclass(frozen=True)
class Gain:
    """What the pretrained weights brought over random ones, for the same network on the same pictures.

    Attributes:
        points: accuracy above that of scratch, in percentage points.
        time_ratio: its seconds divided by those of scratch.
        is_clear: the two intervals do not overlap.
    """

    backbone: str
    strategy: str
    points: float
    time_ratio: float
    is_clear: bool

    @property
    def sentence(self) -> str:
        """Say it without the name of the backbone."""
        size = f"{abs(self.points):.1f} points {'above' if self.points > 0 else 'below'}"
        noise = "" if self.is_clear else ", which may be chance,"
        return f"{self.strategy} is {size if self.points else 'level with'} scratch{noise} {_time(self.time_ratio)}"


@dataclass(frozen=True)
class Comparison:
    """Everything that is shown of a comparison.

    Attributes:
        data: name of the folder.
        split: where the holdout comes from.
        epochs: of finetune and scratch, None for the recipe's own number.
        machine: what the times were measured on.
        created_at: UTC, ISO 8601.
        outcomes: in the order in which they were asked for.
    """

    data: str
    labels: int
    train_images: int
    holdout_images: int
    split: str
    seed: int
    epochs: int | None
    machine: str
    created_at: str
    outcomes: tuple[Row | Failure, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The models."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Row))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What came to nothing."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Failure))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; every row has ``error``, which is empty where there is a model."""
        facts = {key: value for key, value in vars(self).items() if key != "outcomes"}
        rows = [{"error": "", **asdict(outcome)} for outcome in self.outcomes]
        gains = [{**asdict(gain), "sentence": gain.sentence} for gain in gains_of(self.rows)]
        return {**facts, "rows": rows, "gains": gains}


def mark_pareto(outcomes: Sequence[Row | Failure]) -> tuple[Row | Failure, ...]:
    """Return the outcomes with `Row.is_pareto` set."""
    rows = [outcome for outcome in outcomes if isinstance(outcome, Row) and outcome.accuracy is not None]
    costs = zip([-(row.accuracy or 0.0) for row in rows], sizes_of(rows), times_of(rows), strict=True)
    best = {id(rows[index]) for index in pareto_front(list(costs))}
    return tuple(replace(row, is_pareto=id(row) in best) if isinstance(row, Row) else row for row in outcomes)


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """Return the rank of each row's size; about equal ones share it."""
    return levels([row.model_mb for row in rows])


def times_of(rows: Sequence[Row]) -> list[int]:
    """Return the rank of each row's time for a picture; about equal ones share it."""
    return levels([row.ms for row in rows])


def levels(values: Sequence[float], tolerance: float = TOLERANCE) -> list[int]:
    """Rank positive values; a value shares a rank with the smallest one that is at most ``tolerance`` below it.

    A fixed rank, not a tolerance between two values: "about equal" would not be transitive.
    """
    ranks: dict[float, int] = {}
    rank, start = -1, 0.0
    for value in sorted(set(values)):
        if rank < 0 or value > start * (1 + tolerance):
            rank, start = rank + 1, value
        ranks[value] = rank
    return [ranks[value] for value in values]


def pareto_front(costs: Sequence[Sequence[float]]) -> set[int]:
    """Return the indexes of the points that no other is at most as costly as in all respects and cheaper in one."""
    return {index for index, cost in enumerate(costs) if not any(_dominates(other, cost) for other in costs)}


def gains_of(rows: Sequence[Row]) -> list[Gain]:
    """Compare each transferred network with the same network trained from random weights, where both are there."""
    scratch = {row.backbone: row for row in rows if row.strategy == "scratch"}
    return [
        _gain(row, scratch[row.backbone])
        for row in rows
        if row.strategy != "scratch" and row.backbone in scratch and row.accuracy is not None
    ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _gain(row: Row, scratch: Row) -> Gain:
    low, high = row.accuracy_interval or (0.0, 1.0)
    scratch_low, scratch_high = scratch.accuracy_interval or (0.0, 1.0)
    return Gain(
        row.backbone,
        row.strategy,
        round(100 * ((row.accuracy or 0.0) - (scratch.accuracy or 0.0)), 1),
        row.seconds / max(scratch.seconds, 1e-3),
        low > scratch_high or high < scratch_low,
    )


def _time(ratio: float) -> str:
    if ratio < 0.1:
        return f"in 1/{1 / max(ratio, 1e-4):.0f} of the time"
    if ratio <= 1 / _SAME_TIME:
        return f"in {ratio:.0%} of the time"
    return f"in {ratio:.1f} times the time" if ratio >= _SAME_TIME else "in about the same time"
