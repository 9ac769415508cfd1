"""Results of a comparison, and what follows from them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median
from typing import Any, Final

from training.data.subsets import ALL
from training.evaluation.pareto import pareto_front
from training.gate.noninferiority import p_value_of_difference

TOLERANCE: Final = 0.05
"""Sizes and times that differ by less count as equal: the clock is noisy, and each file has another card."""

_SAME_TIME: Final = 1.5
_LEVEL: Final = 0.05
_BASELINES: Final = (("scratch", ("probe", "finetune", "auto")), ("probe", ("finetune",)))
"""Strategies, and those that are held against them."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run of a comparison.

    Attributes:
        data: name of the data set.
        strategy: that was asked for.
        share: of the training pictures, see `training.data.subsets`.
    """

    data: str
    backbone: str
    strategy: str
    share: str = ALL
    seed: int = 0

    @property
    def combination(self) -> tuple[str, str, str]:
        """Data, backbone and strategy, whatever the share and the seed."""
        return self.data, self.backbone, self.strategy

    @property
    def title(self) -> str:
        """Title for people."""
        share = "" if self.share == ALL else f", {self.share} pictures" if "%" not in self.share else f", {self.share}"
        return f"{self.backbone}, {self.strategy}{share}, seed {self.seed}"


@dataclass(frozen=True)
class EpochPoint:
    """Accuracy after an epoch: a point of a training's curve.

    Attributes:
        seconds: since the run began.
        accuracy: on training pictures that were set aside.
    """

    epoch: int
    seconds: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class FinishedRun(Run):
    """A run that ended, with its figures.

    Attributes:
        carried_out: what ``auto`` decided for; else the same as `strategy`.
        weights: where the backbone's numbers came from.
        train_images: that it learned from.
        accuracy: on the holdout; None, as the next two, where there are no holdout images.
        accuracy_interval: 95 % Wilson score interval.
        mistakes: the first digits of the hashes of the holdout images that it answers wrongly.
        train_accuracy: on the images that it learned from.
        unseen_accuracy: on training images, by heads that had not seen them; None where none were held back.
        images_per_s: of training: learned from, median of the epochs, or embedded by a probe.
        seconds: from the list of pictures to the end of the run; with nothing in any cache, where a model was kept.
        stage_seconds: the same by stage.
        curve: of a fine-tuning, epoch by epoch.
        name: of the model in the comparison's store. Only the first run on all pictures is kept as a model: this and
            all that follows is empty of others.
        model: its file, relative to the comparison's folder.
        report: likewise.
        model_mb: size of the file, in millions of bytes.
        parameters: numbers in the file.
        ms: for one picture on one thread, see `training.evaluation.latency`.
        is_pareto: nothing else is at least as accurate, as small and as fast, and better in one of these.
    """

    carried_out: str
    weights: str
    train_images: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    macro_f1: float | None
    mistakes: tuple[str, ...] = ()
    train_accuracy: float
    unseen_accuracy: float | None
    images_per_s: float
    seconds: float
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[EpochPoint, ...] = ()
    name: str = ""
    version: int = 0
    model: str = ""
    report: str = ""
    model_mb: float = 0.0
    parameters: int = 0
    ms: float = 0.0
    is_pareto: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedRun(Run):
    """A run that failed, with the reason."""

    error: str


@dataclass(frozen=True)
class LearningPoint:
    """Accuracy of a combination on one share of the pictures.

    Attributes:
        train_images: mean over the seeds.
        mean: accuracy on the holdout, over the seeds.
        lowest: of the seeds, as is the highest.
        interval: 95 % Wilson score interval of the first seed.
    """

    data: str
    backbone: str
    strategy: str
    share: str
    train_images: float
    mean: float
    lowest: float
    highest: float
    interval: tuple[float, float]
    seeds: int


@dataclass(frozen=True)
class Gain:
    """Gain of one strategy over another, on the same network and pictures.

    Attributes:
        against: the other strategy.
        points: accuracy above it, in percentage points, mean over the seeds.
        lowest: of the seeds, as is the highest.
        time_ratio: its seconds divided by those of the other.
        p_value: of an exact McNemar test on the holdout, median over the seeds.
    """

    data: str
    backbone: str
    strategy: str
    against: str
    share: str
    points: float
    lowest: float
    highest: float
    seeds: int
    time_ratio: float
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Significance: chance alone would rarely make the difference."""
        return self.p_value < _LEVEL

    @property
    def sentence(self) -> str:
        """The gain as a sentence, without the backbone."""
        size = f"{abs(self.points):.1f} points {'above' if self.points > 0 else 'below'}"
        noise = "" if self.is_clear else ", which may be chance,"
        seeds = f" ({self.seeds} seeds: {self.lowest:+.1f} to {self.highest:+.1f})" if self.seeds > 1 else ""
        differs = f"{size}{seeds}" if self.points else f"level with{seeds}"
        subject = f"{self.strategy} is {differs} {self.against}"
        return f"{subject}{noise} {_time(self.time_ratio)}"


@dataclass(frozen=True)
class DataSet:
    """The pictures that all runs on a data set share.

    Attributes:
        split: where the holdout comes from.
        digest: of the pictures and their labels, as they were found.
    """

    name: str
    labels: int
    train_images: int
    holdout_images: int
    split: str
    digest: str


@dataclass(frozen=True)
class Published:
    """Winner of a data set, after the gate of a store.

    Attributes:
        why: it won.
        reasons: of the gate, where it objected.
        pictures: what became of them, see `training.versions.pictures.KeptPictures.to_dict`; None where they were not
            to be kept.
    """

    data: str
    backbone: str
    strategy: str
    why: str
    name: str
    version: int
    promoted: bool
    reasons: tuple[str, ...]
    pictures: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SweepResult:
    """A comparison as it is shown and stored.

    Attributes:
        seeds: of the runs.
        recipe: weights, and what a person changed of the recipe.
        machine: what the times were measured on.
        created_at: UTC, ISO 8601.
        outcomes: in the order in which they were run.
    """

    datasets: tuple[DataSet, ...]
    seeds: tuple[int, ...]
    recipe: Mapping[str, Any]
    machine: str
    created_at: str
    outcomes: tuple[FinishedRun | FailedRun, ...] = ()
    published: tuple[Published, ...] = ()

    @property
    def rows(self) -> tuple[FinishedRun, ...]:
        """Finished runs."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, FinishedRun))

    @property
    def models(self) -> tuple[FinishedRun, ...]:
        """Finished runs whose model was kept."""
        return tuple(row for row in self.rows if row.model)

    @property
    def failures(self) -> tuple[FailedRun, ...]:
        """Failed runs."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, FailedRun))

    def of(self, data: str) -> "SweepResult":
        """Return the part that is about one data set."""
        datasets = tuple(each for each in self.datasets if each.name == data)
        outcomes = tuple(outcome for outcome in self.outcomes if outcome.data == data)
        published = tuple(each for each in self.published if each.data == data)
        return replace(self, datasets=datasets, outcomes=outcomes, published=published)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        gains = [{**asdict(gain), "is_clear": gain.is_clear, "sentence": gain.sentence} for gain in gains_of(self.rows)]
        return {
            "datasets": [asdict(each) for each in self.datasets],
            "seeds": list(self.seeds),
            "recipe": dict(self.recipe),
            "machine": self.machine,
            "created_at": self.created_at,
            "rows": [{"error": "", **asdict(outcome)} for outcome in self.outcomes],
            "learning_curves": [asdict(point) for point in learning_curves(self.rows)],
            "gains": gains,
            "published": [asdict(each) for each in self.published],
        }


def read_row(entry: Mapping[str, Any]) -> FinishedRun:
    """Return a row as `SweepResult.to_dict` has written it."""
    fields = {key: value for key, value in entry.items() if key != "error"}
    interval = tuple(fields["accuracy_interval"]) if fields["accuracy_interval"] else None
    curve = tuple(EpochPoint(**moment) for moment in fields["curve"])
    return FinishedRun(
        **{**fields, "accuracy_interval": interval, "curve": curve, "mistakes": tuple(fields["mistakes"])}
    )


def mark_pareto(outcomes: Sequence[FinishedRun | FailedRun]) -> tuple[FinishedRun | FailedRun, ...]:
    """Return the outcomes with `FinishedRun.is_pareto` set, each data set for itself."""
    best: set[int] = set()
    for data in dict.fromkeys(outcome.data for outcome in outcomes):
        rows = [row for row in outcomes if isinstance(row, FinishedRun) and row.model and row.data == data]
        rows = [row for row in rows if row.accuracy is not None]
        costs = zip([-(row.accuracy or 0.0) for row in rows], sizes_of(rows), times_of(rows), strict=True)
        best |= {id(rows[index]) for index in pareto_front(list(costs))}
    return tuple(replace(row, is_pareto=id(row) in best) if isinstance(row, FinishedRun) else row for row in outcomes)


def sizes_of(rows: Sequence[FinishedRun]) -> list[int]:
    """Rank sizes; about equal ones share a rank."""
    return levels([row.model_mb for row in rows])


def times_of(rows: Sequence[FinishedRun]) -> list[int]:
    """Rank times for a picture; about equal ones share a rank."""
    return levels([row.ms for row in rows])


def levels(values: Sequence[float], tolerance: float = TOLERANCE) -> list[int]:
    """Rank positive values, those within a tolerance of the smallest alike.

    A fixed rank, not a tolerance between two values: "about equal" would not be transitive.
    """
    ranks: dict[float, int] = {}
    rank, start = -1, 0.0
    for value in sorted(set(values)):
        if rank < 0 or value > start * (1 + tolerance):
            rank, start = rank + 1, value
        ranks[value] = rank
    return [ranks[value] for value in values]


def learning_curves(rows: Sequence[FinishedRun]) -> list[LearningPoint]:
    """Return the learning curve of each combination."""
    points = [_learned(runs) for runs in by_share([row for row in rows if row.accuracy is not None]).values()]
    order = list(dict.fromkeys(row.combination for row in rows))
    return sorted(
        points, key=lambda point: (order.index((point.data, point.backbone, point.strategy)), point.train_images)
    )


def gains_of(rows: Sequence[FinishedRun]) -> list[Gain]:
    """Compare transfer with scratch, and fine-tuning with a probe, by seed."""
    return list(_gains([row for row in rows if row.accuracy is not None]))


def winner(rows: Sequence[FinishedRun]) -> FinishedRun | None:
    """Choose the best model by unseen training pictures; of equal ones the faster."""
    ranked = [
        (fmean(row.unseen_accuracy for row in same if row.unseen_accuracy is not None), -model.ms, model)
        for same in by_share(rows).values()
        for model in same
        if model.model and model.unseen_accuracy is not None
    ]
    return max(ranked, key=lambda each: each[:2])[2] if ranked else None


def by_share(rows: Sequence[FinishedRun]) -> dict[tuple[tuple[str, str, str], str], list[FinishedRun]]:
    """Group rows by combination and share; a group differs in its seeds."""
    groups: dict[tuple[tuple[str, str, str], str], list[FinishedRun]] = {}
    for row in rows:
        groups.setdefault((row.combination, row.share), []).append(row)
    return groups


def _learned(runs: Sequence[FinishedRun]) -> LearningPoint:
    first, accuracies = runs[0], [row.accuracy or 0.0 for row in runs]
    return LearningPoint(
        first.data,
        first.backbone,
        first.strategy,
        first.share,
        fmean(row.train_images for row in runs),
        fmean(accuracies),
        min(accuracies),
        max(accuracies),
        first.accuracy_interval or (0.0, 1.0),
        len(runs),
    )


def _gains(rows: Sequence[FinishedRun]) -> Iterator[Gain]:
    runs = by_share(rows)
    for baseline, others in _BASELINES:
        for ((data, backbone, strategy), share), own in runs.items():
            if strategy not in others:
                continue
            baseline_runs = {row.seed: row for row in runs.get(((data, backbone, baseline), share), ())}
            if both := [(row, baseline_runs[row.seed]) for row in own if row.seed in baseline_runs]:
                yield _gain(both)


def _gain(pairs: Sequence[tuple[FinishedRun, FinishedRun]]) -> Gain:
    row, other = pairs[0]
    points = [100 * ((one.accuracy or 0.0) - (its.accuracy or 0.0)) for one, its in pairs]
    return Gain(
        row.data,
        row.backbone,
        row.strategy,
        other.strategy,
        row.share,
        round(fmean(points), 1),
        round(min(points), 1),
        round(max(points), 1),
        len(pairs),
        row.seconds / max(other.seconds, 1e-3),
        median(_p_value(one, its) for one, its in pairs),
    )


def _p_value(row: FinishedRun, other: FinishedRun) -> float:
    """Return how often chance makes as large a difference (McNemar's test, exact)."""
    one, its = {*row.mistakes}, {*other.mistakes}
    return p_value_of_difference(len(its - one), len(one - its))


def _time(ratio: float) -> str:
    if ratio < 0.1:
        return f"in 1/{1 / max(ratio, 1e-4):.0f} of the time"
    if ratio <= 1 / _SAME_TIME:
        return f"in {ratio:.0%} of the time"
    return f"in {ratio:.1f} times the time" if ratio >= _SAME_TIME else "in about the same time"
