import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.runtime import Arithmetic
from serving.plan import Goal, Grid, Point, choose, grid_of, measure, plan_file, recall, remember

LANES = (2, 1)
points = st.lists(
    st.builds(
        Point,
        lanes=st.sampled_from(LANES),
        threads=st.sampled_from((1, 2)),
        batch=st.sampled_from((1, 2, 4, 8)),
        pictures_per_s=st.floats(1, 1000),
        run_ms=st.floats(0.1, 1000),
    ),
    max_size=8,
).map(lambda found: [Point(2, 1, 1, 50.0, 20.0), *found])


def chosen(found: list[Point], goal: Goal = "throughput") -> tuple[int, int, int]:
    plan = choose(found, goal, decode_in_lane=True)
    return plan.lanes, plan.threads, plan.max_batch


@given(points, st.sampled_from(["throughput", "latency"]))
def test_the_plan_is_one_of_the_points_that_were_measured(found: list[Point], goal: Goal) -> None:
    assert chosen(found, goal) in {(point.lanes, point.threads, point.batch) for point in found}


@given(points)
def test_no_batch_holds_a_lane_longer_than_50_ms(found: list[Point]) -> None:
    lanes, threads, batch = chosen(found)

    assert batch == 1 or min(p.run_ms for p in found if (p.lanes, p.threads, p.batch) == (lanes, threads, batch)) <= 50


def test_where_batches_cost_more_than_single_pictures_none_are_made() -> None:
    assert chosen([Point(2, 1, 1, 200, 10), Point(2, 1, 2, 190, 21), Point(1, 2, 1, 150, 6)]) == (2, 1, 1)


def test_of_what_is_equally_fast_the_largest_batch_is_taken() -> None:
    assert chosen([Point(2, 1, 1, 200, 10), Point(2, 1, 2, 199, 20), Point(2, 1, 4, 197, 40)]) == (2, 1, 4)


def test_a_network_that_gains_by_batches_gets_them() -> None:
    assert chosen([Point(2, 1, 1, 100, 10), Point(2, 1, 2, 160, 12), Point(2, 1, 4, 240, 16)]) == (2, 1, 4)


def test_for_latency_one_picture_gets_all_threads_where_that_is_sooner() -> None:
    found = [Point(2, 1, 1, 200, 10), Point(1, 2, 1, 150, 6), Point(1, 2, 2, 160, 12)]

    assert chosen(found) == (2, 1, 1)
    assert chosen(found, "latency") == (1, 2, 1)


def test_for_latency_batches_are_made_where_they_take_hardly_longer() -> None:
    """As on a GPU."""
    found = [Point(1, 1, 1, 500, 2.0), Point(1, 1, 4, 1950, 2.05), Point(1, 1, 32, 4000, 8.0)]

    assert chosen(found, "latency") == (1, 1, 4)


def turn(found: list[Point], goal: Goal = "throughput", *, decode_in_lane: bool = True) -> int:
    return choose(found, goal, decode_in_lane=decode_in_lane).turn


@given(points)
def test_no_turn_of_several_runs_holds_a_lane_longer_than_60_ms(found: list[Point]) -> None:
    plan = choose(found, "throughput", decode_in_lane=True)
    way = (plan.lanes, plan.threads, plan.max_batch)
    fastest_ms = min(point.run_ms for point in found if (point.lanes, point.threads, point.batch) == way)

    assert plan.turn == 1 or plan.turn * fastest_ms <= 60


def test_short_runs_are_handed_in_four_pictures_at_a_time() -> None:
    assert turn([Point(2, 1, 1, 200, 10)]) == 4
    assert turn([Point(2, 1, 1, 140, 14), Point(2, 1, 2, 145, 28)]) == 2
    assert turn([Point(2, 1, 1, 80, 25)]) == 2
    assert turn([Point(2, 1, 1, 20, 100)]) == 1


def test_for_latency_and_on_a_gpu_each_run_is_handed_in_by_itself() -> None:
    assert turn([Point(2, 1, 1, 200, 10)], "latency") == 1
    assert turn([Point(1, 1, 1, 500, 2)], decode_in_lane=False) == 1


@given(st.integers(1, 256))
def test_every_way_of_using_cpus_leaves_none_without_work_where_they_divide(cpus: int) -> None:
    ways = grid_of("cpu", cpus).ways

    assert ways[0] == (cpus, 1)
    assert ways[-1] == (1, cpus)
    assert all(lanes * threads <= cpus and lanes >= 1 for lanes, threads in ways)
    assert len(set(ways)) == len(ways)


class Clock:
    """A network that notes what it is asked, and how many of its lanes run at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def open_run(self, threads: int) -> "Run":
        return Run(self, threads)


class Run:
    def __init__(self, clock: Clock, threads: int) -> None:
        self.clock, self.threads = clock, threads

    def __call__(self, crops: npt.NDArray[np.uint8]) -> None:
        assert crops.shape[1:] == (8, 8, 3)
        assert crops.dtype == np.uint8
        self.clock.asked.append((self.threads, len(crops)))
        self.clock.threads.add(threading.get_ident())
        np.linalg.inv(np.eye(20 * len(crops) ** 2) + 1)  # dearer than its pictures one by one


def test_every_way_is_measured_and_larger_batches_only_until_they_lose() -> None:
    clock = Clock()

    found = measure(clock.open_run, 8, Grid(ways=((2, 1), (1, 2)), batches=(1, 2, 4, 8, 16)))

    assert {(point.lanes, point.threads) for point in found} == {(2, 1), (1, 2)}
    assert max(point.batch for point in found) < 16
    assert {(point.threads, point.batch) for point in found} == set(clock.asked)
    assert all(point.pictures_per_s > 0 < point.run_ms for point in found)


def test_larger_batches_than_any_plan_takes_are_not_tried() -> None:
    asked = set()

    def run(crops: npt.NDArray[np.uint8]) -> None:
        asked.add(len(crops))
        time.sleep(0.03 * len(crops))  # what the network takes

    measure(lambda _threads: run, 8, Grid(ways=((1, 1),), batches=(1, 2, 4, 8)))

    assert asked == {1, 2}


def test_a_measurement_is_kept_and_found_again(tmp_path: Path) -> None:
    found = (Point(2, 1, 1, 200.5, 10.25), Point(1, 2, 4, 150.0, 6.0))
    file = plan_file(tmp_path / "not there yet", "digest", "cpu", 2, "1.0")

    assert recall(file) == ()
    remember(file, found)
    assert recall(file) == found


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"lanes": 1}]', b"\xff", b"[1]", b'"x"'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)

    assert recall(tmp_path / "plan.json") == ()


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    remember(tmp_path / "file" / "plan.json", [Point(1, 1, 1, 1.0, 1.0)])

    assert recall(tmp_path / "file" / "plan.json") == ()


def test_another_backbone_machine_or_runtime_has_another_file(tmp_path: Path) -> None:
    keys: tuple[tuple[str, Arithmetic, int, str], ...] = (
        ("a", "cpu", 2, "1"),
        ("b", "cpu", 2, "1"),
        ("a", "cuda fp32", 2, "1"),
        ("a", "cuda tf32", 2, "1"),
        ("a", "cpu", 4, "1"),
        ("a", "cpu", 2, "2"),
    )

    assert len({plan_file(tmp_path, *key) for key in keys}) == len(keys)
