import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.session import Arithmetic
from serving.inference.execution_plan import (
    Clock,
    Goal,
    Grid,
    Measurement,
    Point,
    Run,
    choose,
    grid_of,
    measure,
    plan_file,
    plan_from,
    read_plan,
    read_points,
    write_points,
)

LANES = (2, 1)
TWO_CPUS = Grid(ways=((2, 1), (1, 2)), batches=(1, 2))
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


def test_runs_are_handed_in_four_pictures_at_a_time() -> None:
    assert turn([Point(2, 1, 1, 200, 10)]) == 4
    assert turn([Point(2, 1, 1, 140, 14), Point(2, 1, 2, 145, 28)]) == 2
    assert turn([Point(2, 1, 1, 100, 10), Point(2, 1, 8, 240, 16)]) == 1


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


@dataclass
class Machine:
    """A machine whose runs take as long as it says.

    By its own clock, one of each thread, as lanes run at once.

    Attributes:
        run_s: what a run of (threads, batch) takes in a round, counted from 0.
        waited_share: how much of that a lane waits for a CPU.
    """

    run_s: Callable[[int, int, int], float]
    waited_share: float = 0.0
    asked: list[tuple[int, int]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    rounds: int = 0
    _time: threading.local = field(default_factory=threading.local)

    def open_run(self, threads: int) -> Run:
        self.opened.append(threads)
        opener = threading.get_ident()

        def run(crops: npt.NDArray[np.uint8]) -> None:
            assert crops.shape[1:] == (8, 8, 3)
            assert crops.dtype == np.uint8
            if threading.get_ident() == opener:  # once before the lanes start
                self.asked.append((threads, len(crops)))
                self.rounds += (threads, len(crops)) == self.asked[0]
            self._time.s = self._now_s() + self.run_s(threads, len(crops), self.rounds - 1)

        return run

    def _now_s(self) -> float:
        return getattr(self._time, "s", 0.0)

    def measure(self, grid: Grid = TWO_CPUS) -> Measurement:
        clock = Clock(self._now_s, lambda: self.waited_share * self._now_s())
        return measure(self.open_run, 8, grid, clock)


def steady(threads: int, batch: int, _round: int) -> float:
    """Return the seconds of a run on two quiet CPUs.

    The second thread helps a little, batches not at all.
    """
    return 0.01 * batch / (1.5 if threads == 2 else 1)


def test_each_point_says_what_its_lanes_did_together_and_what_one_run_took() -> None:
    machine = Machine(steady)

    found = machine.measure()

    assert not found.doubt
    assert sorted(found.points, key=lambda point: (point.threads, point.batch)) == [
        Point(2, 1, 1, 200.0, 10.0),
        Point(2, 1, 2, 200.0, 20.0),
        Point(1, 2, 1, 150.0, 6.667),
        Point(1, 2, 2, 150.0, 13.333),
    ]


def test_rounds_that_agree_are_three_and_each_goes_over_all_points() -> None:
    machine = Machine(steady)

    machine.measure()

    assert machine.opened == [1, 2]
    assert machine.asked == 3 * [(1, 1), (1, 2), (2, 1), (2, 2)]


def slow_now_and_then(slow: Callable[[int], bool]) -> Machine:
    """Return a machine where, in some rounds, several lanes have one CPU between them."""
    return Machine(
        lambda threads, batch, number: steady(threads, batch, number) * (2 if slow(number) else 1) ** (threads == 1)
    )


def test_other_work_that_ends_is_waited_for_and_the_plan_is_that_of_the_quiet_machine() -> None:
    machine = slow_now_and_then(lambda number: number < 2)

    found = machine.measure()

    assert (machine.rounds, found.doubt) == (5, "")
    assert chosen(list(found.points)) == (2, 1, 2)


def test_rounds_that_never_agree_end_after_six_and_leave_a_doubt_that_says_so() -> None:
    machine = slow_now_and_then(lambda number: number % 2 == 1)

    found = machine.measure()

    assert machine.rounds == 6
    assert found.doubt == "rounds disagree: 2x1x2 reached 67% of the best throughput in one of them"


def test_rounds_that_agree_beside_work_that_goes_on_are_not_believed_either() -> None:
    """Measuring beside steady work yields no plan to keep.

    Else two lanes that share what a neighbour leaves of two CPUs would look slower than one, for ever.
    """
    found = Machine(lambda *asked: 1.5 * steady(*asked), waited_share=0.33).measure()

    assert found.doubt == "other work kept the lanes waiting for a CPU for 33% of the time"


@given(st.lists(st.floats(0.95, 1.0), min_size=24, max_size=24))
def test_small_differences_between_rounds_are_no_doubt(noise: list[float]) -> None:
    machine = Machine(
        lambda threads, batch, number: steady(threads, batch, number) / noise[4 * number + 2 * threads + batch - 3]
    )

    assert machine.measure().doubt == ""
    assert machine.rounds == 3


@pytest.mark.parametrize(("doubt", "plan"), [("", "1x2x1"), ("rounds disagree", "4x1x1")])
def test_in_doubt_each_cpu_has_a_lane(doubt: str, plan: str) -> None:
    measured = Measurement((Point(2, 1, 1, 100.0, 20.0), Point(1, 2, 1, 150.0, 7.0)), doubt)

    assert str(plan_from(measured, "throughput", 4, on_cpu=True)) == plan
    assert str(plan_from(measured, "throughput", 4, on_cpu=False)) == "1x2x1"
    assert str(plan_from(measured, "latency", 4, on_cpu=True)) == "1x2x1"


def test_a_doubt_about_the_latency_counts_too() -> None:
    machine = Machine(
        lambda threads, batch, number: steady(threads, batch, number) * (2.5 if threads == 2 and number % 2 else 1)
    )

    assert machine.measure().doubt == "rounds disagree: 1x2x1 reached 60% of the best latency in one of them"


def test_larger_batches_are_measured_only_until_they_lose() -> None:
    machine = Machine(lambda threads, batch, _round: 0.001 * batch**2 / threads)

    machine.measure(Grid(ways=((2, 1), (1, 2)), batches=(1, 2, 4, 8, 16)))

    assert machine.asked == 3 * [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_larger_batches_than_any_plan_takes_are_not_tried() -> None:
    machine = Machine(lambda _threads, batch, _round: 0.03 * batch)

    machine.measure(Grid(ways=((1, 1),), batches=(1, 2, 4, 8)))

    assert set(machine.asked) == {(1, 1), (1, 2)}


def test_a_real_clock_tells_how_long_a_thread_ran_and_how_long_others_kept_it_from_it() -> None:
    clock = Clock()
    began_s, waited_s = clock.now_s(), clock.waited_s()
    busy(0.002)

    assert 0 <= clock.waited_s() - waited_s <= clock.now_s() - began_s


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this system does not tell")
def test_threads_that_share_one_cpu_have_waited_for_it() -> None:
    def share() -> float:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        together.wait()
        waited_s = Clock().waited_s()
        busy(0.05)
        return Clock().waited_s() - waited_s

    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        waited = [future.result() for future in [pool.submit(share) for _ in range(2)]]

    assert sum(waited) >= 0.02  # of two times 0.05 s of work on one CPU


def busy(seconds: float) -> None:
    """Use a CPU for so long."""
    ends_s = time.thread_time() + seconds
    while time.thread_time() < ends_s:
        pass


@given(*3 * [st.integers(1, 9999)])
def test_a_plan_is_read_as_it_is_printed(lanes: int, threads: int, batch: int) -> None:
    plan = read_plan(f"{lanes}x{threads}x{batch}")

    assert (plan.lanes, plan.threads, plan.max_batch) == (lanes, threads, batch)
    assert str(plan) == f"{lanes}x{threads}x{batch}"


@pytest.mark.parametrize(
    "text", ["", "2", "2x1", "0x1x1", "2x1x1x1", "2 x 1 x 1", "-2x1x1", "2x1x10000", "２x1x1", "two"]
)
def test_what_is_no_plan_is_refused_and_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="need LANESxTHREADSxBATCH, such as 2x1x1"):
        read_plan(text)


def test_a_measurement_is_kept_and_found_again(tmp_path: Path) -> None:
    found = (Point(2, 1, 1, 200.5, 10.25), Point(1, 2, 4, 150.0, 6.0))
    file = plan_file(tmp_path / "not there yet", "digest", "cpu", 2, "1.0")

    assert read_points(file) == ()
    write_points(file, found)
    assert read_points(file) == found


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"lanes": 1}]', b"\xff", b"[1]", b'"x"'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)

    assert read_points(tmp_path / "plan.json") == ()


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    write_points(tmp_path / "file" / "plan.json", [Point(1, 1, 1, 1.0, 1.0)])

    assert read_points(tmp_path / "file" / "plan.json") == ()


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
