import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from regraft.model.session import require_onnxruntime
from regraft.stores.backbones import BackboneStore
from serving.backbones.picture_times import PictureTimes
from serving.inference.cpus import CpuPool
from serving.inference.execution_plan import Clock, Point, plan_file, write_points
from serving.supervisor import Backoff
from serving.threads import Threads
from tests.regraft.stores.test_backbones import add

STEP_S = 0.01


class Ticking:
    """A clock that goes on by a hundredth of a second each look.

    It waits as it is told.
    """

    def __init__(self, waited_s: float = 0.0) -> None:
        self.time_s = self.waits_s = 0.0
        self.waited_s = waited_s
        self.looks = 0

    def clock(self) -> Clock:
        return Clock(self._now_s, self._waited_s)

    def _now_s(self) -> float:
        self.looks += 1
        self.time_s += STEP_S
        return self.time_s

    def _waited_s(self) -> float:
        self.waits_s += self.waited_s
        return self.waits_s


@pytest.fixture
def store(tmp_path: Path) -> BackboneStore:
    return BackboneStore(tmp_path / "store")


def run(store: BackboneStore, ticking: Ticking, act: Callable[[PictureTimes], Coroutine[None, None, None]]) -> None:
    async def with_times() -> None:
        threads = Threads(1)
        try:
            await act(
                PictureTimes(
                    store,
                    threads,
                    CpuPool(1),
                    provider="cpu",
                    plans=store.root.parent / "plans",
                    clock=ticking.clock(),
                    pauses=Backoff(60.0, 60.0),
                )
            )
        finally:
            threads.close()

    asyncio.run(with_times())


def test_nothing_is_known_before_it_was_measured_and_each_look_measures_one(store: BackboneStore) -> None:
    digests = [add(store, str(scale), scale).digest for scale in (1.0, 2.0)]

    async def look(times: PictureTimes) -> None:
        assert [times.get(digest) for digest in digests] == [None, None]
        await times.look()
        assert [times.get(digest) is None for digest in digests] == [False, True]
        await times.look()
        assert [times.get(digest) for digest in digests] == pytest.approx([1000 * STEP_S] * 2)

    run(store, Ticking(), look)


def test_what_an_execution_plan_was_measured_for_is_not_measured_again(store: BackboneStore) -> None:
    digest = add(store).digest
    points = (Point(2, 1, 1, 200.0, 9.5), Point(1, 2, 1, 150.0, 6.0), Point(2, 1, 2, 210.0, 19.0))
    plans = store.root.parent / "plans"
    write_points(plan_file(plans, digest, "cpu", 1, require_onnxruntime().__version__), points)
    ticking = Ticking()

    async def look(times: PictureTimes) -> None:
        await times.look()
        assert times.get(digest) == 9.5

    run(store, ticking, look)
    assert ticking.looks <= 2


def test_what_was_measured_beside_other_work_is_not_told_and_measured_later(store: BackboneStore) -> None:
    digest = add(store).digest
    ticking = Ticking(waited_s=1.0)

    async def look(times: PictureTimes) -> None:
        await times.look()
        assert times.get(digest) is None
        ticking.waited_s = 0.0
        await times.look()
        assert times.get(digest) is None, "its pause is not over"
        ticking.time_s += 60
        await times.look()
        assert times.get(digest) is not None

    run(store, ticking, look)


def test_a_damaged_backbone_holds_up_no_other(store: BackboneStore) -> None:
    damaged, sound = add(store, "a", 1.0).digest, add(store, "b", 2.0).digest
    store.file(damaged).write_bytes(b"rubbish")

    async def look(times: PictureTimes) -> None:
        await times.look()
        assert times.get(damaged) is None
        assert times.get(sound) is not None

    run(store, Ticking(), look)
