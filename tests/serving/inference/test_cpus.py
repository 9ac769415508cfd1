"""The CPUs that all backbones share."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.image.decode import decode_crop
from regraft.model.artifact import IMAGE
from regraft.model.session import OpenSession
from serving.inference.backbone import Backbone, InferenceRequest
from serving.inference.cpus import CpuPool
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan
from tests.tiny import SPEC, picture, tiny_head
from tests.waiting import PATIENCE_S, asynchronous, until, wait_until

HEAD = tiny_head(("red", "green", "blue"))


class Meter:
    """Counts the CPUs that are in use, and the most that ever were."""

    def __init__(self) -> None:
        self.used = self.most_used = 0
        self._lock = threading.Lock()

    @contextmanager
    def using(self, count: int) -> Iterator[None]:
        with self._lock:
            self.used += count
            self.most_used = max(self.most_used, self.used)
        yield
        with self._lock:
            self.used -= count


class CountedSession:
    """Stands in for a session whose runs count the CPUs that they use."""

    def __init__(self, meter: Meter, threads: int) -> None:
        self._meter, self._threads = meter, threads
        self.runs = 0

    def run(self, _names: Sequence[str], feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        count = len(feed[IMAGE])
        with self._meter.using(self._threads):
            self.runs += 1
            np.linalg.inv(np.eye(60) + 1)  # lets go of the interpreter, so that others meet it
        return [np.full((count, 3), 1 / 3, np.float32), np.zeros((count, 12), np.float32), np.zeros(count, np.float32)]


@asynchronous
async def test_several_backbones_use_no_more_cpus_together_than_there_are() -> None:
    meter, cpus = Meter(), CpuPool(2)
    plans = [ExecutionPlan(2, 1, 2, True), ExecutionPlan(1, 2, 2, True), ExecutionPlan(2, 1, 1, True)]
    sessions = [CountedSession(meter, plan.threads) for plan in plans]
    backbones = [
        Backbone(Engine(OpenSession(session, "cpu"), plan), max_queue=100, cpus=cpus)
        for session, plan in zip(sessions, plans, strict=True)
    ]
    question = InferenceRequest(decode_crop(picture("red"), SPEC), SPEC, HEAD)

    await asyncio.gather(*(backbone.infer(question) for _ in range(30) for backbone in backbones))

    assert meter.most_used == 2
    assert all(session.runs for session in sessions)
    for backbone in backbones:
        backbone.close()


@asynchronous
async def test_a_head_is_tried_on_cpus_that_nobody_else_has() -> None:
    meter, cpus = Meter(), CpuPool(1)
    session = CountedSession(meter, 1)
    backbone = Backbone(Engine(OpenSession(session, "cpu"), ExecutionPlan(1, 1, 1, True)), max_queue=1, cpus=cpus)

    with cpus.reserve(1):
        trial = asyncio.create_task(backbone.try_head(HEAD, SPEC.crop_px))
        await until(lambda: cpus.waiting == 1)
        assert session.runs == 0
    await trial

    assert session.runs == 1
    backbone.close()


@asynchronous
async def test_a_lane_of_a_gpu_waits_for_no_cpu_not_even_behind_decoders_that_do() -> None:
    cpus, session = CpuPool(1), CountedSession(Meter(), 1)
    backbone = Backbone(Engine(OpenSession(session, "cpu"), ExecutionPlan(1, 1, 1)), max_queue=2, cpus=cpus)

    with cpus.reserve(1):
        encoded = asyncio.create_task(backbone.infer(InferenceRequest(picture("red"), SPEC, HEAD)))
        await until(lambda: cpus.waiting == 1)
        async with asyncio.timeout(PATIENCE_S):
            await backbone.infer(InferenceRequest(decode_crop(picture("red"), SPEC), SPEC, HEAD))
        assert not encoded.done()
    await encoded

    assert session.runs == 2
    backbone.close()


@given(st.integers(1, 4), st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_whoever_asks_gets_cpus_and_never_more_than_there_are(count: int, asked: list[int]) -> None:
    meter, cpus = Meter(), CpuPool(count)

    def use(wanted: int) -> None:
        with cpus.reserve(wanted), meter.using(min(wanted, count)):
            pass

    with ThreadPoolExecutor(len(asked)) as pool:
        list(pool.map(use, asked, timeout=PATIENCE_S))

    assert meter.used == 0
    assert meter.most_used <= count


def test_cpus_are_had_in_the_order_of_asking_so_that_who_needs_all_is_not_passed_by_for_ever() -> None:
    cpus, order = CpuPool(2), list[int]()

    def use(count: int) -> None:
        with cpus.reserve(count):
            order.append(count)

    with ThreadPoolExecutor(2) as pool, cpus.reserve(1):
        using = []
        for count in (2, 1):
            using.append(pool.submit(use, count))
            wait_until(lambda: cpus.waiting == len(using))
        assert order == [], "one CPU is free, and the first in the line needs two"

    assert order == [2, 1]


def test_cpus_come_back_whatever_a_run_raises() -> None:
    cpus = CpuPool(1)
    for _ in range(2):
        with pytest.raises(ArithmeticError), cpus.reserve(1):
            raise ArithmeticError
