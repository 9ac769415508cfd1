import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from sqlalchemy import Engine, event

from regraft.errors import NotFoundError, PreconditionError
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobKind, JobState, RetrainJob
from regraft.stores.labels import AddOutcome
from regraft.stores.models import FEATURES_FILE, ModelStore
from regraft.stores.originals import OriginalPicture
from regraft.stores.recovery import job_lock
from serving.retraining.jobs import JobRunner, check_trainable, has_torch
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.live_server import stalled_retrain
from tests.tiny import picture, publish_tiny
from tests.waiting import asynchronous, until


@dataclass
class Stage:
    """A job runner without a server around it."""

    store: ModelStore
    examples: ExamplesStore
    runner: JobRunner
    metrics: Metrics
    finished: list[str] = field(default_factory=list)

    def outcome_count(self, outcome: str) -> float | None:
        labels = {"model": "colours", "outcome": outcome}
        return self.metrics.registry.get_sample_value("regraft_retrain_jobs_total", labels)

    async def end_of(self, job: RetrainJob) -> RetrainJob:
        seen = [seen async for seen in self.runner.watch(job.id)]
        assert [job.state.is_final for job in seen] == [False] * (len(seen) - 1) + [True]
        assert seen[-1] == self.examples.jobs.get(job.id)
        return seen[-1]


@asynccontextmanager
async def stage(
    store: ModelStore,
    child_arguments: list[str] | None = None,
    limit_s: float | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Stage]:
    examples, metrics, threads = ExamplesStore(store.root / ".examples"), Metrics(), Threads()
    finished: list[str] = []

    async def on_finished() -> None:
        await asyncio.sleep(0)
        finished.append("finished")

    arguments = child_arguments or ["--store", str(store.root), "--examples", str(store.root / ".examples")]
    child = (arguments, metrics, threads, on_finished)
    limits_s = {} if limit_s is None else {JobKind.RETRAIN: limit_s}
    runner = JobRunner(store, examples, *child, limits_s=limits_s, limits=limits, environment=environment)
    try:
        yield Stage(store, examples, runner, metrics, finished)
    finally:
        await runner.close()
        threads.close()
        examples.close()


@asynchronous
async def test_a_job_with_nothing_new_is_refused_by_its_process(store: ModelStore) -> None:
    async with stage(store) as s:
        job = await s.runner.start("colours", {}, "ada")
        assert (job.state, job.model, job.requested_by) == (JobState.PENDING, "colours", "ada")
        end = await s.end_of(job)

        assert end.state is JobState.REFUSED
        assert "nothing new" in end.message
        assert s.finished == ["finished"]
        assert s.outcome_count("refused") == 1
        assert s.metrics.registry.get_sample_value("regraft_retrain_seconds_count", {"model": "colours"}) == 1
        assert (await s.runner.cancel(job.id)).state is JobState.REFUSED, "what is over is left as it is"


@asynchronous
async def test_the_servers_limits_of_pictures_hold_in_its_jobs(store: ModelStore) -> None:
    async with stage(store, limits=ImageLimits(max_pixels=1500)) as s:
        s.examples.add("colours", picture("red", 3, side_px=40), "red")

        end = await s.end_of(await s.runner.start("colours", {}, "ada"))

        assert "nothing new" in end.message, "all there was is over the limit"


@asynchronous
async def test_a_training_of_hours_holds_up_no_retrain_of_another_model(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    with stalled_retrain(store):
        async with stage(store) as s:
            training = await s.runner.start("colours", {}, "ada", kind=JobKind.TRAIN)
            other = await s.runner.start("animals", {}, "ada")

            assert (await s.end_of(other)).state is JobState.REFUSED
            await s.runner.cancel(training.id)
            assert (await s.end_of(training)).state is JobState.CANCELLED

    assert s.metrics.registry.get_sample_value("regraft_train_seconds_count", {"model": "colours"}) == 1


@asynchronous
async def test_a_second_job_for_a_model_is_refused_while_the_first_one_is_not_over(store: ModelStore) -> None:
    async with stage(store) as s:
        first = s.examples.jobs.create("colours", {}, "cron")
        with pytest.raises(PreconditionError, match=first.id):
            await s.runner.start("colours", {}, "bob")

        assert [job.id for job in s.examples.jobs.list()] == [first.id]


@asynchronous
async def test_a_job_cancelled_before_its_process_claims_it_never_runs(store: ModelStore) -> None:
    async with stage(store) as s:
        job = await s.runner.start("colours", {}, "ada")
        assert (await s.runner.cancel(job.id)).state is JobState.CANCELLED

        assert (await s.end_of(job)).state is JobState.CANCELLED
        assert s.finished == ["finished"], "its process is gone"
        assert s.outcome_count("cancelled") == 1
        assert store.versions("colours") == [1]


@asynchronous
async def test_a_process_that_never_claims_its_job_leaves_it_failed(store: ModelStore) -> None:
    async with stage(store, ["--no-such-flag"]) as s:
        end = await s.end_of(await s.runner.start("colours", {}, "ada"))

        assert end.state is JobState.FAILED
        assert end.message == "could not start: its process ended with exit code 2"
        assert s.outcome_count("failed") == 1


@asynchronous
async def test_a_process_that_cannot_even_be_started_leaves_its_job_failed(store: ModelStore) -> None:
    """Every job comes to a final state, or nobody could ever start another."""
    async with stage(store, ["no program takes a \0 in its arguments"]) as s:
        job = await s.runner.start("colours", {}, "ada")
        await until(lambda: len(asyncio.all_tasks()) == 1)  # whatever the runner does about it is over

        assert s.examples.jobs.get(job.id).state is JobState.FAILED
        assert s.outcome_count("failed") == 1


@asynchronous
async def test_a_job_that_waits_for_a_model_locked_by_another_process_fails_and_says_so(store: ModelStore) -> None:
    async with stage(store) as s:
        with job_lock(s.examples, "colours"):
            end = await s.end_of(await s.runner.start("colours", {}, "ada"))

        assert end.state is JobState.FAILED
        assert end.message == "could not start: its model is being retrained by another process, outside of any job"


@asynchronous
async def test_jobs_that_do_not_exist_are_not_found(store: ModelStore) -> None:
    async with stage(store) as s:
        with pytest.raises(NotFoundError, match="nothing"):
            await s.runner.cancel("nothing")
        with pytest.raises(NotFoundError, match="nothing"):
            assert [job async for job in s.runner.watch("nothing")]


@asynchronous
async def test_a_watcher_sees_every_change_once_and_another_process_may_make_it(store: ModelStore) -> None:
    async with stage(store) as s:
        jobs = s.examples.jobs
        with job_lock(s.examples, "colours"):  # as that process holds it
            job = jobs.create("colours", {}, "cron")
            watching = s.runner.watch(job.id)
            assert (await anext(watching)).state is JobState.PENDING
            jobs.claim(job.id)
            assert (await anext(watching)).state is JobState.RUNNING
            jobs.report(job.id, "embed", 0.5, "half of it")
            seen = await anext(watching)
            assert (seen.phase, seen.fraction, seen.message) == ("embed", 0.5, "half of it")
            jobs.finish(job.id, JobState.REFUSED, "no better")
            assert (await anext(watching)).state is JobState.REFUSED
        with pytest.raises(StopAsyncIteration):
            await anext(watching)


@asynchronous
async def test_a_watcher_of_a_job_whose_process_dies_sees_it_begin_anew_and_end(store: ModelStore) -> None:
    """Invariant 6: nobody waits for ever for a job that nobody runs."""
    async with stage(store) as s:
        with job_lock(s.examples, "colours"):
            job = s.examples.jobs.create("colours", {}, "cron")
            s.examples.jobs.claim(job.id)
            watching = s.runner.watch(job.id)
            assert (await anext(watching)).state is JobState.RUNNING

        *before, end = [seen async for seen in watching]
        assert before[0].state is JobState.PENDING, "it waits for a process, which takes longer to start than a look"
        assert end.state is JobState.REFUSED
        assert "second attempt; the first was interrupted" in end.message


@asynchronous
async def test_a_job_whose_process_dies_while_nobody_watches_begins_anew(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        looking = asyncio.create_task(s.runner.run(every_s=0.01))
        with job_lock(s.examples, "colours"):
            job = s.examples.jobs.create("colours", {}, "a server that was killed")
            s.examples.jobs.claim(job.id)
        await until(lambda: s.outcome_count("refused") == 1)
        looking.cancel()

        assert s.examples.jobs.get(job.id).state is JobState.REFUSED
        assert "second attempt" in s.examples.jobs.get(job.id).message


@asynchronous
async def test_a_job_that_nobody_runs_is_taken_up_when_somebody_asks_for_another(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        orphan = s.examples.jobs.create("colours", {}, "cron")
        s.examples.jobs.claim(orphan.id)
        with pytest.raises(PreconditionError, match=orphan.id):
            await s.runner.start("colours", {}, "ada")

        assert (await s.end_of(orphan)).state is JobState.REFUSED


@asynchronous
async def test_a_job_found_running_without_a_process_is_run_once_more(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        job = interrupted(s.examples, s.examples.jobs.create("colours", {}, "ada"))
        await s.runner.resume()

        end = await s.end_of(job)
        assert end.state is JobState.REFUSED
        assert "nothing new" in end.message
        assert "the first was interrupted in phase 'fit'" in end.message


@asynchronous
async def test_a_job_found_interrupted_twice_failed_and_the_model_is_free_again(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        job = interrupted(s.examples, s.examples.jobs.create("colours", {}, "ada"))
        s.examples.jobs.put_back(job, "interrupted in phase 'read': a deployment")
        interrupted(s.examples, job)
        await s.runner.resume()

        end = s.examples.jobs.get(job.id)
        assert end.state is JobState.FAILED
        assert "interrupted in phase 'fit'" in end.message
        assert "interrupted in phase 'read': a deployment" in end.message
        assert s.examples.jobs.create("colours", {}, "ada").state is JobState.PENDING


def interrupted(examples: ExamplesStore, job: RetrainJob) -> RetrainJob:
    """Leave a job as a process that was killed while it fitted does."""
    assert examples.jobs.claim(job.id)
    examples.jobs.report(job.id, "fit", 0.7, "")
    return examples.jobs.get(job.id)


@asynchronous
async def test_a_job_found_running_whose_promotion_is_in_the_history_succeeded(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        job = s.examples.jobs.create("colours", {}, "ada")
        s.examples.jobs.claim(job.id)
        store.move("colours", 1, who="ada", why="", job=job.id)
        await s.runner.resume()

        end = s.examples.jobs.get(job.id)
        assert (end.state, end.version) == (JobState.SUCCEEDED, 1)


@asynchronous
async def test_a_job_found_running_that_was_to_be_cancelled_is_cancelled(store: ModelStore) -> None:
    async with stage(store) as s:
        job = s.examples.jobs.create("colours", {}, "ada")
        s.examples.jobs.claim(job.id)
        s.examples.jobs.request_cancel(job.id)
        await s.runner.resume()

        assert s.examples.jobs.get(job.id).state is JobState.CANCELLED


@asynchronous
async def test_a_job_found_running_in_a_living_process_is_left_alone(store: ModelStore) -> None:
    async with stage(store) as s:
        with job_lock(s.examples, "colours"):
            job = s.examples.jobs.create("colours", {}, "cron")
            s.examples.jobs.claim(job.id)
            await s.runner.resume()

            assert s.examples.jobs.get(job.id).state is JobState.RUNNING


@asynchronous
async def test_a_job_found_waiting_is_started(store: ModelStore) -> None:
    async with stage(store) as s:
        job = s.examples.jobs.create("colours", {}, "ada")
        await s.runner.resume()

        assert (await s.end_of(job)).state is JobState.REFUSED
        assert s.finished == ["finished"]


@asynchronous
async def test_a_job_that_keeps_waiting_since_its_server_died_is_taken_up(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        job = s.examples.jobs.create("colours", {}, "a server that was killed")
        looking = asyncio.create_task(s.runner.run(every_s=0.01))
        await until(lambda: s.outcome_count("refused") == 1)
        looking.cancel()

        end = s.examples.jobs.get(job.id)
        assert end.state is JobState.REFUSED
        assert "nothing new" in end.message
        assert "attempt" not in end.message


@asynchronous
async def test_a_job_that_waits_for_its_turn_is_not_taken_up_by_its_own_server(store: ModelStore) -> None:
    publish_tiny(store, name="shades")
    with stalled_retrain(store, "colours"):
        async with stage(store) as s:
            looking = asyncio.create_task(s.runner.run(every_s=0.01))
            first, second = [await s.runner.start(name, {}, "ada") for name in ("colours", "shades")]
            await until(lambda: s.examples.jobs.get(first.id).phase == "read")
            looking.cancel()

            assert s.examples.jobs.get(second.id).state is JobState.PENDING
            await s.runner.cancel(first.id)
            assert (await s.end_of(second)).state is JobState.REFUSED
            assert s.outcome_count("cancelled") == 1


@asynchronous
async def test_of_two_servers_that_start_a_job_one_runs_it_and_the_other_does_no_harm(store: ModelStore) -> None:
    async with stage(store) as one, stage(store) as other:
        job = one.examples.jobs.create("colours", {}, "a server that was killed")
        await asyncio.gather(one.runner.resume(), other.runner.resume())
        ends = await asyncio.gather(one.end_of(job), other.end_of(job))

        assert [end.state for end in ends] == [JobState.REFUSED, JobState.REFUSED]
        assert ends[0].message == "nothing new: version 1 was fitted on the very same images and labels"
        assert one.finished == other.finished == ["finished"]


@asynchronous
async def test_a_process_that_comes_between_the_lock_and_the_claim_of_another_does_no_harm(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "regraft.jobs")
    async with stage(store) as s:
        with job_lock(s.examples, "colours"):  # as the process of another server holds it
            job = await s.runner.start("colours", {}, "ada")
            await until(lambda: "another process was faster" in caplog.text)
            assert s.examples.jobs.claim(job.id)
            await until(lambda: s.finished)

            assert s.examples.jobs.get(job.id).state is JobState.RUNNING
            s.examples.jobs.finish(job.id, JobState.REFUSED, "no better")


@asynchronous
async def test_a_job_whose_process_ends_for_want_of_memory_fails_and_is_not_run_again(store: ModelStore) -> None:
    places = ["--store", str(store.root), "--examples", str(store.root / ".examples")]
    async with stage(store, [*places, "--memory-mb", "1"]) as s:
        end = await s.end_of(await s.runner.start("colours", {}, "ada"))

    assert end.state is JobState.FAILED
    assert end.message.startswith("it needs more memory than its limit of 1 MB, and had ")


@asynchronous
async def test_jobs_of_several_models_are_run_one_after_the_other(store: ModelStore) -> None:
    publish_tiny(store, name="shades")
    async with stage(store) as s:
        first, second = [await s.runner.start(name, {}, "ada") for name in ("colours", "shades")]
        await s.end_of(first)
        waited = s.examples.jobs.get(second.id)
        end = await s.end_of(second)

        assert waited.state in (JobState.PENDING, JobState.RUNNING)
        assert end.state is JobState.REFUSED
        assert s.finished == ["finished", "finished"]


@asynchronous
async def test_a_job_cancelled_while_it_waits_for_another_models_is_over_at_once(store: ModelStore) -> None:
    publish_tiny(store, name="shades")
    with stalled_retrain(store, "colours"):
        async with stage(store) as s:
            first, second = [await s.runner.start(name, {}, "ada") for name in ("colours", "shades")]
            await s.runner.cancel(second.id)

            assert (await s.end_of(second)).state is JobState.CANCELLED
            assert not s.examples.jobs.get(first.id).state.is_final
            await s.runner.cancel(first.id)
            assert (await s.end_of(first)).state is JobState.CANCELLED


@asynchronous
async def test_jobs_that_wait_when_the_server_stops_are_for_the_next_start(store: ModelStore) -> None:
    publish_tiny(store, name="shades")
    with stalled_retrain(store, "colours"):
        async with stage(store) as s:
            for name in ("colours", "shades"):
                await s.runner.start(name, {}, "ada")
    async with stage(store) as s:
        (waiting,) = s.examples.jobs.list("shades")
        assert waiting.state is JobState.PENDING
        await s.runner.resume()

        assert (await s.end_of(waiting)).state is JobState.REFUSED


@asynchronous
async def test_the_same_key_is_the_same_job_even_when_it_is_over(store: ModelStore) -> None:
    async with stage(store) as s:
        first = await s.runner.start("colours", {}, "ada", "release 7")
        again = await s.runner.start("colours", {}, "bob", "release 7")
        await s.end_of(first)
        later = await s.runner.start("colours", {}, "bob", "release 7")
        other = await s.runner.start("colours", {}, "bob", "release 8")
        await s.end_of(other)

        assert first.id == again.id == later.id != other.id
        assert len(s.examples.jobs.list()) == 2


@asynchronous
async def test_the_same_request_twice_at_once_is_one_job(store: ModelStore) -> None:
    async with stage(store) as s:
        jobs = await asyncio.gather(*(s.runner.start("colours", {}, "ada", "key") for _ in range(5)))
        await s.end_of(jobs[0])

        assert len({job.id for job in jobs}) == 1


@asynchronous
async def test_a_job_that_takes_too_long_fails_and_says_so(store: ModelStore) -> None:
    places = ["--store", str(store.root), "--examples", str(store.root / ".examples")]
    with stalled_retrain(store):
        async with stage(store, [*places, "--minutes", "0.03"]) as s:
            end = await s.end_of(await s.runner.start("colours", {}, "ada"))

    assert (end.state, end.message) == (JobState.FAILED, "it took longer than its limit of 0.03 minutes")


@asynchronous
async def test_a_job_that_does_not_heed_its_limit_is_killed_and_not_run_again(store: ModelStore) -> None:
    with stalled_retrain(store):
        async with stage(store, limit_s=0.5) as s:
            end = await s.end_of(await s.runner.start("colours", {}, "ada"))

    assert end.state is JobState.FAILED
    assert end.message.endswith("it outlived its time limit and was killed")


STOPS_IN_A_WRITE = """
import os, pathlib, signal, sys
if "training.retrain" in sys.orig_argv:
    from sqlalchemy import Engine, event

    def stop(connection, cursor, statement, parameters, context, many):
        marker = pathlib.Path(__file__).with_name("stopped")
        if statement.startswith("INSERT INTO splits") and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    event.listen(Engine, "after_cursor_execute", stop)
"""


@pytest.fixture
def stopping(tmp_path: Path) -> dict[str, str]:
    """The environment of retrains of which the first stops inside a write, once it has the lock."""
    folder = tmp_path / "stopping"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STOPS_IN_A_WRITE)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


async def stopped_job(s: Stage, tmp_path: Path) -> RetrainJob:
    """Start a retrain, wait until it is stopped, and see that it has the lock."""
    job = await s.runner.start("colours", {}, "ada")
    await until((tmp_path / "stopping/stopped").exists)
    file = s.store.root / ".examples/examples.sqlite"
    with closing(sqlite3.connect(file, timeout=0)) as database, pytest.raises(sqlite3.OperationalError, match="locked"):
        database.execute("BEGIN IMMEDIATE")
    return job


@asynchronous
async def test_a_job_that_is_stopped_inside_a_write_is_ended_so_that_labels_go_on_and_begins_anew(
    store: ModelStore, tmp_path: Path, stopping: dict[str, str]
) -> None:
    """It would hold the database's lock for as long as nobody lets it go on."""
    async with stage(store, environment=stopping) as s:
        job = await stopped_job(s, tmp_path)
        assert await asyncio.to_thread(s.examples.add, "colours", picture("red", 99), "red") is AddOutcome.ACCEPTED

        end = await s.end_of(job)
        assert end.state in (JobState.REFUSED, JobState.SUCCEEDED)
        assert "second attempt; the first was interrupted in phase" in end.message
        assert "its process was stopped (SIGSTOP, or a freezer), and ended since it may have held a lock" in end.message


@asynchronous
async def test_a_job_that_is_stopped_inside_a_write_can_be_cancelled(
    store: ModelStore, tmp_path: Path, stopping: dict[str, str]
) -> None:
    async with stage(store, environment=stopping) as s:
        job = await stopped_job(s, tmp_path)
        await s.runner.cancel(job.id)

        assert (await s.end_of(job)).state is JobState.CANCELLED


@asynchronous
async def test_two_hundred_watchers_read_the_database_as_often_as_one(store: ModelStore) -> None:
    reads = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM retrain_jobs" in statement and "retrain_jobs.id = " in statement:
            reads.append(statement)

    async def follow(s: Stage, job: RetrainJob, seen: list[str]) -> None:
        async for state in s.runner.watch(job.id):
            seen.append(state.message)  # noqa: PERF401 - others look at the list meanwhile

    def all_were_told(message: str) -> bool:
        return all(seen[-1] == message for seen in told)

    async with stage(store) as s:
        with job_lock(s.examples, "colours"):
            job = s.examples.jobs.create("colours", {}, "cron")
            s.examples.jobs.claim(job.id)
            told: list[list[str]] = [[] for _ in range(200)]
            watching = asyncio.gather(*(follow(s, job, seen) for seen in told))
            await until(lambda: all(told))
            event.listen(Engine, "before_cursor_execute", count)
            for number in range(5):
                s.examples.jobs.report(job.id, "embed", 0.1 * number, f"{number} of 5")
                await until(partial(all_were_told, f"{number} of 5"))
            event.remove(Engine, "before_cursor_execute", count)
            s.examples.jobs.finish(job.id, JobState.REFUSED, "no better")
            await watching

    assert {tuple(seen) for seen in told} == {("started", *(f"{number} of 5" for number in range(5)), "no better")}
    assert len(reads) < 5 * 20, "a watcher each would have read a thousand times and more"


@asynchronous
async def test_who_leaves_ends_no_other_watch_and_the_last_one_ends_the_reading(store: ModelStore) -> None:
    async with stage(store) as s:
        with job_lock(s.examples, "colours"):
            job = s.examples.jobs.create("colours", {}, "cron")
            one, other = s.runner.watch(job.id), s.runner.watch(job.id)
            await anext(one)
            await anext(other)
            await one.aclose()
            s.examples.jobs.claim(job.id)
            assert (await anext(other)).state is JobState.RUNNING
            before = len(asyncio.all_tasks())
            await other.aclose()
            await until(lambda: len(asyncio.all_tasks()) == before - 1)

            again = s.runner.watch(job.id)
            assert (await anext(again)).state is JobState.RUNNING
            await again.aclose()


@asynchronous
async def test_a_job_that_runs_when_the_server_stops_is_for_the_next_start(store: ModelStore) -> None:
    with stalled_retrain(store):
        async with stage(store) as s:
            job = await s.runner.start("colours", {}, "ada")
            await until(lambda: s.examples.jobs.get(job.id).phase == "read")
    async with stage(store) as s:
        waiting = s.examples.jobs.get(job.id)
        assert waiting.state is JobState.PENDING
        assert "interrupted in phase 'read': its server was stopped" in waiting.message
        await s.runner.resume()

        assert (await s.end_of(waiting)).state is JobState.REFUSED


@asynchronous
async def test_a_job_that_refused_but_could_not_say_so_is_settled_as_refused(store: ModelStore) -> None:
    """Invariant 6."""
    async with stage(store) as s:
        job = s.examples.jobs.create("colours", {}, "ada")
        s.examples.jobs.claim(job.id)
        folder = store.folder("colours", 1)

        def write(fresh: Path) -> None:
            shutil.copytree(folder, fresh, dirs_exist_ok=True)

        version = store.publish("colours", write, who="ada", why="refused: no better", job=job.id)
        await s.runner.resume()

        end = s.examples.jobs.get(job.id)
        assert (end.state, end.version, end.message) == (JobState.REFUSED, version, "no better")


def test_without_torch_a_training_says_what_to_install(store: ModelStore, examples: ExamplesStore) -> None:
    assert has_torch(), "the tests of training need it"
    with pytest.raises(PreconditionError, match=r"needs torch.*pip install 'regraft\[train\]'"):
        check_trainable(store, examples, "colours", 1, torch_is_here=lambda: False)


def test_pictures_of_the_champion_have_to_be_among_the_examples_or_to_have_been(
    store: ModelStore, examples: ExamplesStore
) -> None:
    with np.load(store.folder("colours", 1) / FEATURES_FILE) as features:
        hashes = [str(sha256) for sha256 in features["sha256"]]
    every = len(hashes)
    pictures = [
        OriginalPicture(sha256, store.root / sha256, "red", is_holdout=False, embedding=np.zeros(1, np.float32))
        for sha256 in hashes
    ]

    with pytest.raises(PreconditionError, match=rf"{every} of {every} pictures.*regraft refresh DATA --name colours"):
        check_trainable(store, examples, "colours", 1)
    examples.originals.record("colours", pictures[1:], "ada", is_live=True)
    with pytest.raises(PreconditionError, match=rf"1 of {every} pictures of 'colours'.*the first is {hashes[0]}"):
        check_trainable(store, examples, "colours", 1)
    examples.originals.record("colours", pictures[:1], "ada", is_live=True)
    examples.labels.remove("colours", hashes[0])

    check_trainable(store, examples, "colours", 1)
