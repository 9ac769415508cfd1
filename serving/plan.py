"""How a backbone runs best on this machine: measured once, chosen by a rule, kept by content.

Batching is no free lunch on a CPU: with some networks a batch costs more than its pictures one by one, and which it is
depends on the machine. So nothing is assumed.
"""

import hashlib
import json
import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from regraft.files import write_durably
from regraft.runtime import Arithmetic, processor

log = logging.getLogger("regraft.plan")

Goal = Literal["throughput", "latency"]
Run: TypeAlias = Callable[[npt.NDArray[np.uint8]], object]
"""Runs the network on crops uint8 [N, P, P, 3], from several threads at once."""

PLAN_VERSION: Final = 1
"""Raised whenever the same measurement would be read otherwise."""

_ROUNDS: Final = 2
_WINDOW_S: Final = 0.05
_FEWEST_RUNS: Final = 3
_AS_GOOD: Final = 0.98
"""Below this share of the best throughput a plan is worse; above it the difference is noise."""
_LONGEST_RUN_MS: Final = 50.0
"""A batch that holds a lane longer than this makes whoever comes next wait too long."""
_LONGEST_TURN_MS: Final = 60.0
_MOST_OF_A_TURN: Final = 4
"""Pictures; more of them spare the processor's caches hardly anything."""
_BARELY_SLOWER: Final = 1.1
_NOT_WORTH_MORE: Final = 0.9


@dataclass(frozen=True)
class ExecutionPlan:
    """How a backbone is run.

    Attributes:
        lanes: how many runs go on at once.
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


@dataclass(frozen=True)
class Point:
    """What was measured: ``lanes`` at once, each running batch after batch.

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
class Grid:
    """What is worth measuring: (lanes, threads) pairs, and batch sizes from small to large."""

    ways: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]


def grid_of(provider: str, cpus: int) -> Grid:
    """Return what is measured on a provider.

    On a CPU every way uses all of ``cpus``: from one thread a lane to one lane; and one picture alone on one thread.
    """
    if provider == "cuda":
        return Grid(ways=((1, 1), (2, 1)), batches=(1, 2, 4, 8, 16, 32))
    threads = [*(count for count in (1, 2, 4, 8, 16) if count < cpus), cpus]
    return Grid(ways=tuple((cpus // count, count) for count in threads), batches=(1, 2, 4, 8))


def measure(open_run: Callable[[int], Run], crop_px: int, grid: Grid) -> tuple[Point, ...]:
    """Measure every point of a grid, in two rounds of which the better one counts: other work only ever slows down.

    A larger batch is not tried where the one before already lost a tenth, or took longer than that of any plan: with
    the largest networks it is what measuring would take longest for.

    Args:
        open_run: makes what runs the network with so many threads.
        crop_px: side of the crops.
        grid: what to measure.
    """
    best: dict[tuple[int, int, int], Point] = {}
    runs = {threads: open_run(threads) for _, threads in grid.ways}
    for _ in range(_ROUNDS):
        for lanes, threads in grid.ways:
            for point in _points(runs[threads], crop_px, (lanes, threads), grid.batches):
                key = (point.lanes, point.threads, point.batch)
                best[key] = max(point, best.get(key, point), key=lambda point: point.pictures_per_s)
    return tuple(best.values())


def choose(points: Sequence[Point], goal: Goal, *, decode_in_lane: bool) -> ExecutionPlan:
    """Choose by what was measured.

    ``throughput``: of what is as good as the best, the largest batch, since each run costs a hop between threads, but
    none that holds a lane for longer than 50 ms; on a CPU short runs are handed in several at a time. ``latency``: the
    way in which a single picture is done soonest, with batches only where they take hardly longer than one picture.
    """
    turn = 1
    if goal == "throughput":
        usable = [point for point in points if point.batch == 1 or point.run_ms <= _LONGEST_RUN_MS]
        good_enough = _AS_GOOD * max(point.pictures_per_s for point in usable)
        found = max(
            (point for point in usable if point.pictures_per_s >= good_enough),
            key=lambda point: (point.batch, point.pictures_per_s),
        )
        if decode_in_lane:  # a GPU's answers come by the batch
            turn = max(1, min(_MOST_OF_A_TURN // found.batch, int(_LONGEST_TURN_MS / found.run_ms)))
    else:
        single = min((point for point in points if point.batch == 1), key=lambda point: point.run_ms)
        same_way = [point for point in points if (point.lanes, point.threads) == (single.lanes, single.threads)]
        found = max(
            (point for point in same_way if point.run_ms <= _BARELY_SLOWER * single.run_ms),
            key=lambda point: point.batch,
        )
    return ExecutionPlan(found.lanes, found.threads, found.batch, decode_in_lane, turn)


def plan_file(folder: Path, backbone_digest: str, arithmetic: Arithmetic, cpus: int, ort_version: str) -> Path:
    """Return where a measurement is kept: the same network on the same hardware and runtime has the same file."""
    what = [PLAN_VERSION, backbone_digest, arithmetic, cpus, processor(), ort_version]
    return folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()}.json"


def recall(file: Path) -> tuple[Point, ...]:
    """Return what `remember` kept; nothing where there is no such file, or a damaged one."""
    try:
        return tuple(Point(**entry) for entry in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ()


def remember(file: Path, points: Sequence[Point]) -> None:
    """Keep a measurement for the next start; where that cannot be, the next start measures again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, json.dumps([asdict(point) for point in points]).encode())
    except OSError as error:
        log.info("the execution plan cannot be kept: %s", error)


def _points(run: Run, crop_px: int, way: tuple[int, int], batches: Sequence[int]) -> Iterator[Point]:
    lanes, threads = way
    generator = np.random.default_rng(0)
    best, longest_ms = 0.0, _LONGEST_RUN_MS
    for batch in batches:
        crops = generator.integers(0, 256, (batch, crop_px, crop_px, 3), dtype=np.uint8)
        run(crops)
        pictures_per_s, run_ms = _busy(lambda crops=crops: run(crops), lanes, batch)  # type: ignore[misc]  # mypy cannot infer defaults
        yield Point(lanes, threads, batch, round(pictures_per_s, 2), round(run_ms, 3))
        best = max(best, pictures_per_s)
        if batch == 1:
            longest_ms = max(longest_ms, _BARELY_SLOWER * run_ms)
        if pictures_per_s < _NOT_WORTH_MORE * best or run_ms > longest_ms:
            return


def _busy(run: Callable[[], object], lanes: int, batch: int) -> tuple[float, float]:
    """Run in so many threads at once, and return pictures a second and the median milliseconds of a run."""
    start = threading.Barrier(lanes)

    def lane() -> tuple[float, list[float]]:
        start.wait()
        began_s = time.perf_counter()
        taken: list[float] = []
        while len(taken) < _FEWEST_RUNS or time.perf_counter() - began_s < _WINDOW_S:
            run_began_s = time.perf_counter()
            run()
            taken.append(time.perf_counter() - run_began_s)
        return time.perf_counter() - began_s, taken

    with ThreadPoolExecutor(lanes) as pool:
        done = [future.result() for future in [pool.submit(lane) for _ in range(lanes)]]
    pictures_per_s = sum(batch * len(taken) / elapsed_s for elapsed_s, taken in done)
    return pictures_per_s, 1000 * statistics.median(seconds for _, taken in done for seconds in taken)
