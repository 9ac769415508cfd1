import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import StorageError
from serving.supervisor import Backoff, Supervisor, do_all
from serving.telemetry.metrics import Metrics
from tests.serving.fakes import Panic
from tests.serving.metric_samples import value_of
from tests.waiting import PATIENCE_S, asynchronous, until

QUICKLY = Backoff(0.001, 0.002)


class Act:
    """The work of a task: it counts its beginnings, and may raise."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.times = 0
        self.lives = self.was_cancelled = False

    async def __call__(self) -> None:
        self.times += 1
        if self.error:
            raise self.error

    async def for_ever(self) -> None:
        try:
            await self()
            self.lives = True
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


@asynccontextmanager
async def supervising(metrics: Metrics | None = None, on_change: Act | None = None) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(metrics or Metrics(), on_change, QUICKLY)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), MemoryError(), Panic("native code"), SystemExit(1), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
@asynchronous
async def test_a_task_that_dies_is_logged_counted_and_begun_again_whatever_it_raised(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, act = Metrics(), Act(error)
    async with supervising(metrics) as supervisor:
        supervisor.start("look around", act.for_ever)
        await until(lambda: act.times > 1)
        act.error = None
        await until(lambda: act.lives)
        died = value_of(metrics.registry, "regraft_background_failures_total", {"task": "look around"})

    assert died == act.times - 1 > 0
    first = caplog.records[0]
    assert (first.levelno, first.exc_info and first.exc_info[1]) == (logging.ERROR, error)
    assert "the task to look around died" in first.getMessage()


@asynchronous
async def test_a_task_that_never_failed_is_counted_as_none() -> None:
    metrics = Metrics()
    async with supervising(metrics) as supervisor:
        supervisor.start("look around", Act().for_ever)

    assert value_of(metrics.registry, "regraft_background_failures_total", {"task": "look around"}) == 0


@asynchronous
async def test_a_process_is_not_alive_while_one_of_its_tasks_keeps_dying() -> None:
    dying, told = Act(MemoryError()), Act()
    async with supervising(on_change=told) as supervisor:
        supervisor.repeat("look around", dying, 0.001)
        supervisor.repeat("do well", Act(), 0.001)
        await until(supervisor.liveness_problem)
        assert dying.times >= 10
        assert "the task to look around died 1" in supervisor.liveness_problem()

        dying.error = None
        await until(lambda: not supervisor.liveness_problem())
        await until(lambda: told.times == 2)


@asynchronous
async def test_whoever_cannot_hear_that_a_task_keeps_dying_does_not_end_it() -> None:
    dying, told = Act(MemoryError()), Act(MemoryError())
    async with supervising(on_change=told) as supervisor:
        supervisor.repeat("look around", dying, 0.001)
        await until(lambda: told.times)
        seen = dying.times
        await until(lambda: dying.times > seen + 2)


@asynchronous
async def test_a_task_that_does_well_now_and_then_is_no_reason_to_restart() -> None:
    class MostlyBad(Act):
        async def __call__(self) -> None:
            self.error = RuntimeError() if self.times % 9 else None
            await super().__call__()

    act, told = MostlyBad(), Act()
    async with supervising(on_change=told) as supervisor:
        supervisor.repeat("look around", act, 0.0)
        await until(lambda: act.times > 50)

    assert told.times == 0


@pytest.mark.parametrize("error", [StorageError("the database is away"), OSError(5, "the disk is away")])
@asynchronous
async def test_a_neighbour_that_is_away_is_a_line_in_the_log_and_no_reason_to_restart(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    act = Act(error)
    async with supervising() as supervisor:
        supervisor.repeat("ask the database", act, 0.001)
        await until(lambda: act.times > 20)
        assert not supervisor.liveness_problem()

    line = caplog.records[0]
    assert (line.levelno, line.exc_info) == (logging.WARNING, None)
    assert line.getMessage() == f"cannot ask the database, and tries again in 0.001 s: {error}"


@asynchronous
async def test_a_task_that_ends_is_not_begun_again() -> None:
    act, other = Act(), Act()
    async with supervising() as supervisor:
        supervisor.start("open the database", act)
        supervisor.repeat("do well", other, 0.001)
        await until(lambda: other.times > 5)

    assert act.times == 1


@asynchronous
async def test_a_task_that_has_ended_may_be_started_again(caplog: pytest.LogCaptureFixture) -> None:
    act = Act()
    async with supervising() as supervisor:
        for _ in range(3):
            await supervisor.start("read the callers again", act).wait()

    assert (act.times, caplog.messages) == (3, [])


@asynchronous
async def test_stopping_ends_every_task_whatever_another_one_raises(caplog: pytest.LogCaptureFixture) -> None:
    class DiesAtTheEnd(Act):
        async def for_ever(self) -> None:
            try:
                await super().for_ever()
            except asyncio.CancelledError:
                raise RuntimeError("at the end") from None

    tasks = [Act(), DiesAtTheEnd(), Act()]
    async with supervising() as supervisor:
        for number, task in enumerate(tasks):
            supervisor.start(f"do number {number}", task.for_ever)
        await until(lambda: all(task.lives for task in tasks))

    assert [task.was_cancelled for task in tasks] == [True, True, True]
    assert caplog.messages == ["the task to do number 1 died when it was stopped"]


@asynchronous
async def test_a_task_that_waits_to_begin_again_is_stopped_as_well() -> None:
    act = Act(RuntimeError())
    supervisor = Supervisor(Metrics(), pauses=Backoff(PATIENCE_S, PATIENCE_S))
    supervisor.start("look around", act)
    await until(lambda: act.times)
    await supervisor.stop()

    assert act.times == 1


@asynchronous
async def test_everything_is_done_whatever_some_of_it_raises_and_the_first_error_comes_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    acts = [Act(), Act(RuntimeError("the first")), Act(Panic("the second")), Act()]
    with pytest.raises(RuntimeError, match="the first"):
        await do_all(acts)

    assert [act.times for act in acts] == [1, 1, 1, 1]
    assert [str(record.exc_info and record.exc_info[1]) for record in caplog.records] == ["the second"]


@asynchronous
async def test_who_is_cancelled_does_no_more() -> None:
    held, after = Act(), Act()
    doing = asyncio.create_task(do_all([held.for_ever, after]))
    await until(lambda: held.lives)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing

    assert after.times == 0


@asynchronous
async def test_what_a_task_does_after_it_was_cancelled_is_done_whatever_some_of_it_raises() -> None:
    held, acts = Act(), [Act(OSError("a step")), Act()]

    async def serve() -> None:
        try:
            await held.for_ever()
        finally:
            await do_all(acts)

    serving = asyncio.create_task(serve())
    await until(lambda: held.lives)
    serving.cancel()
    with pytest.raises(OSError, match="a step"):
        await serving

    assert [act.times for act in acts] == [1, 1]


@given(st.floats(0.001, 10), st.floats(0.001, 100), st.integers(1, 10_000))
def test_pauses_double_and_have_an_end(first_s: float, most_s: float, failures: int) -> None:
    backoff = Backoff(first_s, most_s)

    assert 0 < backoff.after(failures) <= most_s
    assert backoff.after(failures + 1) in (min(most_s, 2 * backoff.after(failures)), most_s)
