"""Invariant 6: whatever ends a job's process, the job goes on once, or ends as what it had done says."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import ModelStore
from regraft.stores.recovery import fail, job_lock, settle_interrupted


@pytest.fixture
def examples(tmp_path: Path, database: str) -> Iterator[ExamplesStore]:
    examples = ExamplesStore(tmp_path / "examples", database)
    yield examples
    examples.close()


@pytest.fixture
def job(examples: ExamplesStore) -> RetrainJob:
    """A job that its process had claimed, and was fitting for, when it was killed."""
    return claimed(examples, examples.jobs.create("colours", {"gate": "auto"}, "ada"))


def claimed(examples: ExamplesStore, job: RetrainJob) -> RetrainJob:
    assert examples.jobs.claim(job.id)
    examples.jobs.report(job.id, "fit", 0.7, "fit: 7 of 10", champion=1)
    return examples.jobs.get(job.id)


def publish_as(store: ModelStore, job: RetrainJob, why: str) -> int:
    folder = store.folder("colours", 1)

    def write(fresh: Path) -> None:
        shutil.copytree(folder, fresh, dirs_exist_ok=True)

    return store.publish("colours", write, who="ada", why=why, job=job.id)


def test_a_job_that_is_interrupted_waits_anew_under_the_same_id_and_with_the_same_settings(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    settled = settle_interrupted(examples, store, job, "it was killed")

    assert settled is not None
    assert settled == examples.jobs.get(job.id)
    assert (settled.id, settled.state, settled.phase, settled.fraction) == (job.id, JobState.PENDING, "", 0.0)
    assert (settled.settings, settled.created_at, settled.finished_at) == ({"gate": "auto"}, job.created_at, None)
    assert "second attempt" in settled.message
    assert "interrupted in phase 'fit': it was killed" in settled.message


def test_the_second_attempt_is_told_as_such_whatever_it_reports_and_however_it_ends(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    settle_interrupted(examples, store, job, "it was killed")

    second = claimed(examples, job)
    examples.jobs.finish(job.id, JobState.SUCCEEDED, "version 2 is the champion")

    first = "(second attempt; the first was interrupted in phase 'fit': it was killed)"
    assert second.message == f"fit: 7 of 10 {first}"
    assert examples.jobs.get(job.id).message == f"version 2 is the champion {first}"
    assert examples.jobs.list() == [examples.jobs.get(job.id)]


def test_a_job_that_is_interrupted_twice_failed_and_tells_of_both(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    settle_interrupted(examples, store, job, "a deployment")

    settled = settle_interrupted(examples, store, claimed(examples, job), "no memory")

    assert settled is not None
    assert settled.state is JobState.FAILED
    assert settled.message == (
        "interrupted in phase 'fit': no memory (second attempt; the first was interrupted in phase 'fit': a deployment)"
    )


def test_what_would_fail_alike_is_not_tried_again(store: ModelStore, examples: ExamplesStore, job: RetrainJob) -> None:
    settled = settle_interrupted(examples, store, job, "it ended with exit code 1", again=False)

    assert settled is not None
    assert (settled.state, settled.interrupted) == (JobState.FAILED, "")
    assert settled.message == "interrupted in phase 'fit': it ended with exit code 1"


@pytest.mark.parametrize("again", [True, False])
def test_a_job_whose_promotion_is_in_the_history_succeeded(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob, again: bool
) -> None:
    version = publish_as(store, job, "retrain")
    store.move("colours", version, who="ada", why="retrain", job=job.id)

    settled = settle_interrupted(examples, store, job, "it was killed", again=again)

    assert settled is not None
    assert (settled.state, settled.version) == (JobState.SUCCEEDED, version)


@pytest.mark.parametrize("again", [True, False])
def test_a_job_whose_refusal_is_in_the_history_was_refused(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob, again: bool
) -> None:
    version = publish_as(store, job, "refused: no better")

    settled = settle_interrupted(examples, store, job, "it was killed", again=again)

    assert settled is not None
    assert (settled.state, settled.version, settled.message) == (JobState.REFUSED, version, "no better")


def test_a_job_that_published_but_did_not_promote_is_not_over(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    publish_as(store, job, "retrain: holdout accuracy 0.8 -> 0.9")

    settled = settle_interrupted(examples, store, job, "it was killed")

    assert settled is not None
    assert settled.state is JobState.PENDING


def test_a_job_that_was_to_be_cancelled_is_cancelled(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    examples.jobs.request_cancel(job.id)

    settled = settle_interrupted(examples, store, job, "it was killed")

    assert settled is not None
    assert (settled.state, settled.message) == (JobState.CANCELLED, "cancelled")


def test_a_job_that_waits_for_its_second_attempt_can_be_cancelled(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    settle_interrupted(examples, store, job, "it was killed")

    assert examples.jobs.request_cancel(job.id).state is JobState.CANCELLED
    assert not examples.jobs.claim(job.id)


def test_a_job_whose_process_lives_is_left_alone(store: ModelStore, examples: ExamplesStore, job: RetrainJob) -> None:
    with job_lock(examples, "colours"):
        assert settle_interrupted(examples, store, job, "it seems") is None

    assert examples.jobs.get(job.id) == job


def test_a_job_that_somebody_else_settled_since_it_was_seen_is_left_to_them(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    settle_interrupted(examples, store, job, "it was killed")
    waiting = examples.jobs.get(job.id)
    assert settle_interrupted(examples, store, job, "it was killed") is None
    assert examples.jobs.get(job.id) == waiting

    second = claimed(examples, job)
    assert settle_interrupted(examples, store, job, "it was killed") is None
    assert examples.jobs.get(job.id) == second, "the second attempt is not the one that was seen"


def test_a_process_that_was_killed_before_it_claimed_its_job_is_followed_by_one_more(
    store: ModelStore, examples: ExamplesStore
) -> None:
    job = examples.jobs.create("colours", {}, "ada")

    first = settle_interrupted(examples, store, job, "it was killed")
    assert first is not None
    second = settle_interrupted(examples, store, first, "it was killed")

    assert first.state is JobState.PENDING
    assert second is not None
    assert second.state is JobState.FAILED
    assert second.message.count("could not start: it was killed") == 2


def test_a_job_that_cannot_go_on_failed_unless_the_history_has_its_end(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    fail(examples, store, job, "no memory")
    failed = examples.jobs.get(job.id)
    other = claimed(examples, examples.jobs.create("colours", {}, "ada"))
    store.move("colours", 1, who="ada", why="", job=other.id)
    fail(examples, store, other, "no memory")

    assert (failed.state, failed.message) == (JobState.FAILED, "no memory")
    assert examples.jobs.get(other.id).state is JobState.SUCCEEDED


def test_of_many_who_find_a_job_interrupted_at_once_one_is_to_start_it(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob
) -> None:
    start = Barrier(8)

    def settle(_: int) -> RetrainJob | None:
        start.wait()
        return settle_interrupted(examples, store, job, "it was killed")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(settle, range(8)))

    assert [answer for answer in answers if answer] == [examples.jobs.get(job.id)]
