"""Execution plan of a backbone on this machine: measure, choose, store.

Batching is no free lunch on a CPU: with some networks a batch costs more than its pictures one by one, and which it is
depends on the machine. So nothing is assumed.

What was measured beside other work may be wrong, and would be believed for ever. So rounds over all points follow each
other until three in a row agree, six at the most: the same plan is the best of them together and, give or take a tenth,
of each, and the lanes hardly waited for a CPU. Else there is a doubt: nothing is stored, the next start measures again.
Until then each CPU has a lane, which is best, or nearly, for most networks. Beside heavy load nine measurements of nine
preferred one lane with all threads, which does two thirds as much.
"""

import hashlib
import json
import logging
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from regraft.files import write_durably
from regraft.machine import processor
from regraft.model.session import Arithmetic

log = logging.getLogger("regraft.plan")

Goal = Literal["throughput", "latency"]
Run: TypeAlias = Callable[[npt.NDArray[np.uint8]], object]
"""Runs the network on crops uint8 [N, P, P, 3], from several threads at once."""

PLAN_VERSION: Final = 2
"""Raised whenever the same measurement would be read otherwise."""

_AGREEING_ROUNDS: Final = 3
_MAX_ROUNDS: Final = 6
_AGREEING_SHARE: Final = 0.9
"""The share of a round's best that the plan of all rounds must reach in it."""
_MAX_WAITED_SHARE: Final = 0.1
"""The share of its time that a lane may wait for a CPU, in every round."""
_WINDOW_S: Final = 0.05
_MIN_RUNS: Final = 3
_GOOD_SHARE: Final = 0.98
"""Below this share of the best throughput a plan is worse; above it the difference is noise."""
_MAX_RUN_MS: Final = 50.0
"""A batch that holds a lane longer makes the next request wait too long."""
_PICTURES_PER_TURN: Final = 4
"""Pictures; more of them spare the processor's caches hardly anything."""
_BARELY_SLOWER: Final = 1.1
_NOT_WORTH_MORE: Final = 0.9


@dataclass(frozen=True)
class ExecutionPlan:
    """Lanes, threads and batch size of a backbone.

    Attributes:
        lanes: the number of runs at once.
        threads: threads of one run, on a CPU.
        max_batch: the most pictures of one run.
        decode_in_lane: whether the thread that runs a picture decodes it too; else other threads do.
        turn: while many wait, the most runs that a lane makes before it hands in what came of them.
    """

    lanes: int
    threads: int
    max_batch: int
    decode_in_lane: bool = False
    turn: int = 1

    def on_a_cpu(self, goal: Goal) -> "ExecutionPlan":
        """Return the plan on a CPU: lanes decode, and hand in several runs."""
        turn = max(1, _PICTURES_PER_TURN // self.max_batch) if goal == "throughput" else 1
        return replace(self, decode_in_lane=True, turn=turn)

    def __str__(self) -> str:
        """Return it as `read_plan` reads it."""
        return f"{self.lanes}x{self.threads}x{self.max_batch}"


def read_plan(text: str) -> ExecutionPlan:
    """Read a plan from ``LANESxTHREADSxBATCH``, as ``regraft plan`` prints it.

    Raises:
        ValueError: it is none; the text says what one looks like.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})x([1-9]\d{0,3})", text, re.ASCII)
    if match is None:
        raise ValueError("need LANESxTHREADSxBATCH, such as 2x1x1, each 1 to 9999; `regraft plan` prints it")
    return ExecutionPlan(lanes=int(match[1]), threads=int(match[2]), max_batch=int(match[3]))


@dataclass(frozen=True)
class Point:
    """A measured point: ``lanes`` at once, each running batch after batch.

    Attributes:
        lanes: see `ExecutionPlan`.
        threads: likewise.
        batch: pictures of one run.
        pictures_per_s: of all lanes together.
        run_ms: median of one run.
    """

    lanes: int
    threads: int
    batch: int
    pictures_per_s: float
    run_ms: float


@dataclass(frozen=True)
class Measurement:
    """The best points of a grid; ``doubt`` says why they may be wrong."""

    points: tuple[Point, ...]
    doubt: str = ""


def _waited_s() -> float:
    """Return the seconds that this thread waited for a CPU; 0 if unknown."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


@dataclass(frozen=True)
class Clock:
    """The clocks of a measurement.

    Attributes:
        now_s: of a clock that never goes back.
        waited_s: seconds that the calling thread has waited for a CPU so far.
    """

    now_s: Callable[[], float] = time.perf_counter
    waited_s: Callable[[], float] = _waited_s


REAL_CLOCK: Final = Clock()


@dataclass(frozen=True)
class Grid:
    """A grid to measure: (lanes, threads) pairs, and batch sizes, ascending."""

    ways: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]


def grid_of(provider: str, cpus: int) -> Grid:
    """Return the grid of a provider.

    On a CPU every way uses all of ``cpus``: from one thread a lane to one lane; and one picture alone on one thread.
    """
    if provider == "cuda":
        return Grid(ways=((1, 1), (2, 1)), batches=(1, 2, 4, 8, 16, 32))
    threads = [*(count for count in (1, 2, 4, 8, 16) if count < cpus), cpus]
    return Grid(ways=tuple((cpus // count, count) for count in threads), batches=(1, 2, 4, 8))


def measure(open_run: Callable[[int], Run], crop_px: int, grid: Grid, clock: Clock = REAL_CLOCK) -> Measurement:
    """Measure a grid, round after round, until three rounds agree.

    Of these each point counts at its best, since other work only ever slows down. A larger batch is not tried where the
    one before already lost a tenth, or took longer than that of any plan: with the largest networks it is what
    measuring would take longest for.

    Args:
        open_run: makes what runs the network with so many threads.
        crop_px: side of the crops.
        grid: the points.
        clock: a test's own.
    """
    runs = {threads: open_run(threads) for _, threads in grid.ways}
    rounds: list[_Round] = []
    while True:
        stopwatch = _Stopwatch(clock)
        points = [
            point
            for lanes, threads in grid.ways
            for point in _points(runs[threads], crop_px, (lanes, threads), grid.batches, stopwatch)
        ]
        rounds.append(_Round(points, stopwatch.waited_share))
        merged = _merge(rounds[-_AGREEING_ROUNDS:])
        if len(rounds) == _MAX_ROUNDS or (len(rounds) >= _AGREEING_ROUNDS and not merged.doubt):
            return merged


def choose(points: Sequence[Point], goal: Goal, *, decode_in_lane: bool) -> ExecutionPlan:
    """Choose a plan by measured points.

    ``throughput``: of what is as good as the best, the largest batch, since each run costs a hop between threads, but
    none that holds a lane for longer than 50 ms; on a CPU short runs are handed in several at a time. ``latency``: the
    way in which a single picture is done soonest, with batches only where they take hardly longer than one picture.
    """
    if goal == "throughput":
        usable = _usable(points)
        good_enough = _GOOD_SHARE * max(point.pictures_per_s for point in usable)
        best = max(
            (point for point in usable if point.pictures_per_s >= good_enough),
            key=lambda point: (point.batch, point.pictures_per_s),
        )
    else:
        single = min((point for point in points if point.batch == 1), key=lambda point: point.run_ms)
        same_way = [point for point in points if (point.lanes, point.threads) == (single.lanes, single.threads)]
        best = max(
            (point for point in same_way if point.run_ms <= _BARELY_SLOWER * single.run_ms),
            key=lambda point: point.batch,
        )
    plan = ExecutionPlan(best.lanes, best.threads, best.batch)
    return plan.on_a_cpu(goal) if decode_in_lane else plan


def plan_from(measured: Measurement, goal: Goal, cpus: int, *, on_cpu: bool) -> ExecutionPlan:
    """Choose a plan by a measurement; in doubt for throughput, a lane a CPU."""
    if measured.doubt and on_cpu and goal == "throughput":
        return ExecutionPlan(lanes=cpus, threads=1, max_batch=1).on_a_cpu(goal)
    return choose(measured.points, goal, decode_in_lane=on_cpu)


def plan_file(folder: Path, backbone_digest: str, arithmetic: Arithmetic, cpus: int, ort_version: str) -> Path:
    """Return the file of a measurement, one by network, hardware and runtime."""
    key = [PLAN_VERSION, backbone_digest, arithmetic, cpus, processor(), ort_version]
    return folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def read_points(file: Path) -> tuple[Point, ...]:
    """Read the points of `write_points`; none from a missing or damaged file."""
    try:
        return tuple(Point(**entry) for entry in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ()


def write_points(file: Path, points: Sequence[Point]) -> None:
    """Store a measurement for the next start; a failure is only logged."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, json.dumps([asdict(point) for point in points]).encode())
    except OSError as error:
        log.info("the execution plan cannot be kept: %s", error)


@dataclass(frozen=True)
class _Round:
    points: Sequence[Point]
    waited_share: float

    def share_of_best(self, plan: ExecutionPlan, goal: Goal) -> float:
        """Return the share of this round's best that a plan reached, 0 if untried."""
        by_key = {_key(point): point for point in self.points}
        if goal == "throughput":
            same = by_key.get((plan.lanes, plan.threads, plan.max_batch))
            best_per_s = max(point.pictures_per_s for point in _usable(self.points))
            return same.pictures_per_s / best_per_s if same else 0.0
        single_ms = by_key[plan.lanes, plan.threads, 1].run_ms
        return min(point.run_ms for point in self.points if point.batch == 1) / single_ms


def _merge(rounds: Sequence[_Round]) -> Measurement:
    """Merge rounds, with the doubt in which they disagree."""
    best: dict[tuple[int, int, int], Point] = {}
    for point in (point for each in rounds for point in each.points):
        best[_key(point)] = max(point, best.get(_key(point), point), key=lambda point: point.pictures_per_s)
    points = tuple(best.values())
    if (waited := max(each.waited_share for each in rounds)) > _MAX_WAITED_SHARE:
        return Measurement(points, f"other work kept the lanes waiting for a CPU for {waited:.0%} of the time")
    for goal in get_args(Goal):
        plan = choose(points, goal, decode_in_lane=False)
        if (share := min(each.share_of_best(plan, goal) for each in rounds)) < _AGREEING_SHARE:
            return Measurement(points, f"rounds disagree: {plan} reached {share:.0%} of the best {goal} in one of them")
    return Measurement(points)


def _key(point: Point) -> tuple[int, int, int]:
    return point.lanes, point.threads, point.batch


def _usable(points: Sequence[Point]) -> list[Point]:
    """Return the points that hold a lane no longer than a plan may."""
    return [point for point in points if point.batch == 1 or point.run_ms <= _MAX_RUN_MS]


class _Stopwatch:
    """The time that lanes take, and their wait for a CPU."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._taken_s = self._waited_s = 0.0

    @property
    def waited_share(self) -> float:
        return self._waited_s / self._taken_s if self._taken_s else 0.0

    def add(self, lanes: Sequence["_LaneTimes"]) -> None:
        self._taken_s += sum(lane.elapsed_s for lane in lanes)
        self._waited_s += sum(lane.waited_s for lane in lanes)


@dataclass(frozen=True)
class _LaneTimes:
    """The times of one lane: in all, of each run, and waiting."""

    elapsed_s: float
    runs_s: Sequence[float]
    waited_s: float


def _points(
    run: Run, crop_px: int, way: tuple[int, int], batches: Sequence[int], stopwatch: _Stopwatch
) -> Iterator[Point]:
    lanes, threads = way
    generator = np.random.default_rng(0)
    best, longest_ms = 0.0, _MAX_RUN_MS
    for batch in batches:
        crops = generator.integers(0, 256, (batch, crop_px, crop_px, 3), dtype=np.uint8)
        run(crops)
        times = _run_lanes(partial(run, crops), lanes, stopwatch.clock)
        stopwatch.add(times)
        pictures_per_s = sum(batch * len(lane.runs_s) / lane.elapsed_s for lane in times)
        run_ms = 1000 * statistics.median(seconds for lane in times for seconds in lane.runs_s)
        yield Point(lanes, threads, batch, round(pictures_per_s, 2), round(run_ms, 3))
        best = max(best, pictures_per_s)
        if batch == 1:
            longest_ms = max(longest_ms, _BARELY_SLOWER * run_ms)
        if pictures_per_s < _NOT_WORTH_MORE * best or run_ms > longest_ms:
            return


def _run_lanes(run: Callable[[], object], lanes: int, clock: Clock) -> list[_LaneTimes]:
    """Run in so many threads at once, each for a window."""
    start = threading.Barrier(lanes)

    def lane() -> _LaneTimes:
        start.wait()
        began_s, waited_s = clock.now_s(), clock.waited_s()
        runs_s: list[float] = []
        while len(runs_s) < _MIN_RUNS or clock.now_s() - began_s < _WINDOW_S:
            run_began_s = clock.now_s()
            run()
            runs_s.append(clock.now_s() - run_began_s)
        return _LaneTimes(clock.now_s() - began_s, runs_s, clock.waited_s() - waited_s)

    with ThreadPoolExecutor(lanes) as pool:
        return [future.result() for future in [pool.submit(lane) for _ in range(lanes)]]
