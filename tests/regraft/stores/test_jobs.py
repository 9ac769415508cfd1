from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from regraft.errors import NotFoundError, PreconditionError, StorageError
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.jobs import ACTIVE, MAX_EPOCHS, JobCancelledError, JobKind, JobState, LearningPoint, RetrainJobs

MODEL = "colours"
FINAL = [state for state in JobState if state not in ACTIVE]


@pytest.fixture
def jobs(engine: Engine) -> RetrainJobs:
    return RetrainJobs(engine)


def pending(jobs: RetrainJobs, model: str = MODEL) -> str:
    return jobs.create(model, {}, "tester").id


def running(jobs: RetrainJobs, model: str = MODEL) -> str:
    job_id = pending(jobs, model)
    assert jobs.claim(job_id)
    return job_id


def test_a_new_job_is_pending_and_knows_who_asked_for_what(jobs: RetrainJobs) -> None:
    before = datetime.now(UTC)

    job = jobs.create(MODEL, {"seed": 7, "limits": {"accuracy": 0.5}}, "Ann")

    assert (job.model, job.state, job.requested_by) == (MODEL, JobState.PENDING, "Ann")
    assert job.settings == {"seed": 7, "limits": {"accuracy": 0.5}}
    assert (job.fraction, job.phase, job.cancel_requested) == (0.0, "", False)
    assert job.message
    assert (job.champion, job.version, job.verdict, job.finished_at) == (None, None, None, None)
    assert before <= datetime.fromisoformat(job.created_at) <= datetime.now(UTC) + timedelta(seconds=1)
    assert jobs.get(job.id) == job


def test_the_life_of_a_job_that_succeeds(jobs: RetrainJobs) -> None:
    job_id = pending(jobs)

    assert jobs.claim(job_id)
    assert jobs.get(job_id).state is JobState.RUNNING
    jobs.report(job_id, "fitting", 0.4, "fits the head", champion=3)
    at_work = jobs.get(job_id)
    assert jobs.finish(job_id, JobState.SUCCEEDED, "blessed", version=4, verdict={"accuracy": [0.9, 0.95]})
    done = jobs.get(job_id)

    assert (at_work.phase, at_work.fraction, at_work.message) == ("fitting", 0.4, "fits the head")
    assert (at_work.champion, at_work.finished_at) == (3, None)
    assert (done.state, done.message, done.fraction) == (JobState.SUCCEEDED, "blessed", 1.0)
    assert (done.champion, done.version, done.verdict) == (3, 4, {"accuracy": [0.9, 0.95]})
    assert done.finished_at is not None
    assert datetime.fromisoformat(done.finished_at) >= datetime.fromisoformat(done.created_at)


def test_a_training_is_told_from_a_retrain_and_keeps_the_points_of_its_curve(jobs: RetrainJobs) -> None:
    job_id = jobs.create(MODEL, {}, "Ann", kind=JobKind.TRAIN).id
    points = [LearningPoint(number, 9, number or None, 0.5, 0.9) for number in range(4)]
    with pytest.raises(JobCancelledError):
        jobs.add_point(job_id, points[0])
    jobs.claim(job_id)

    for point in points:
        jobs.add_point(job_id, point)

    assert (jobs.get(job_id).kind, jobs.get(pending(jobs, "another")).kind) == (JobKind.TRAIN, JobKind.RETRAIN)
    assert jobs.get(job_id).points == tuple(points)
    again = LearningPoint(2, 9, None, None, None)
    jobs.add_point(job_id, again)
    assert jobs.get(job_id).points == (*points[:2], again), "a second attempt goes on from an earlier epoch"


def test_a_curve_has_as_many_points_as_a_training_may_have_epochs(jobs: RetrainJobs) -> None:
    job_id = running(jobs)
    jobs.add_point(job_id, LearningPoint(0, MAX_EPOCHS, None, None, None))
    for number in (1, MAX_EPOCHS):
        jobs.add_point(job_id, LearningPoint(number, MAX_EPOCHS, 1.0, None, None))

    assert [point.epoch for point in jobs.get(job_id).points] == [0, 1, MAX_EPOCHS]


@pytest.mark.parametrize(
    ("state", "fraction"),
    [(JobState.SUCCEEDED, 1.0), (JobState.REFUSED, 1.0), (JobState.FAILED, 0.4), (JobState.CANCELLED, 0.4)],
)
def test_a_job_that_did_its_work_is_all_done_and_one_that_did_not_stays_where_it_was(
    jobs: RetrainJobs, state: JobState, fraction: float
) -> None:
    job_id = running(jobs)
    jobs.report(job_id, "fitting", 0.4, "fits the head")

    jobs.finish(job_id, state, "over")

    assert jobs.get(job_id).fraction == fraction


@pytest.mark.parametrize("state", JobState)
def test_all_states_but_pending_and_running_are_final(state: JobState) -> None:
    assert state.is_final == (state.value in {"SUCCEEDED", "REFUSED", "FAILED", "CANCELLED"})


@pytest.mark.parametrize("make", [pending, running])
def test_a_model_has_one_unfinished_job_at_a_time_and_the_error_names_it(
    jobs: RetrainJobs, make: Callable[[RetrainJobs], str]
) -> None:
    job_id = make(jobs)

    with pytest.raises(PreconditionError, match=f"'{MODEL}' is being retrained already by job {job_id}"):
        pending(jobs)

    assert [job.id for job in jobs.list(MODEL)] == [job_id]


def test_another_model_may_have_its_own_job_meanwhile(jobs: RetrainJobs) -> None:
    first, second = running(jobs, "cats"), running(jobs, "dogs")

    assert (jobs.get(first).state, jobs.get(second).state) == (JobState.RUNNING, JobState.RUNNING)


@pytest.mark.parametrize("state", FINAL)
def test_after_a_job_is_over_the_model_may_have_the_next(jobs: RetrainJobs, state: JobState) -> None:
    first = running(jobs)
    jobs.finish(first, state, "over")

    second = pending(jobs)

    assert second != first
    assert jobs.get(second).state is JobState.PENDING


def test_a_job_can_be_claimed_once(jobs: RetrainJobs) -> None:
    job_id = pending(jobs)

    assert [jobs.claim(job_id), jobs.claim(job_id)] == [True, False]


@pytest.mark.parametrize("state", FINAL)
def test_a_job_that_is_over_cannot_be_claimed(jobs: RetrainJobs, state: JobState) -> None:
    job_id = pending(jobs)
    jobs.finish(job_id, state, "over")

    assert not jobs.claim(job_id)
    assert jobs.get(job_id).state is state


def test_a_job_is_claimed_by_exactly_one_of_many_threads(jobs: RetrainJobs) -> None:
    job_id = pending(jobs)
    start = Barrier(16)

    def claim(_: int) -> bool:
        start.wait()
        return jobs.claim(job_id)

    with ThreadPoolExecutor(16) as threads:
        claimed = list(threads.map(claim, range(16)))

    assert claimed.count(True) == 1
    assert jobs.get(job_id).state is JobState.RUNNING


def test_of_threads_that_ask_for_a_job_at_once_one_gets_it_and_the_others_hear_its_name(jobs: RetrainJobs) -> None:
    start = Barrier(8)

    def create(thread: int) -> str:
        start.wait()
        try:
            return jobs.create(MODEL, {}, f"thread {thread}").id
        except PreconditionError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(create, range(8)))

    (job,) = jobs.list(MODEL)
    assert answers.count(job.id) == 1
    assert sum(f"job {job.id}:" in answer for answer in answers) == 7


def test_a_pending_job_that_is_cancelled_ends_at_once(jobs: RetrainJobs) -> None:
    job_id = pending(jobs)

    job = jobs.request_cancel(job_id)

    assert job.state is JobState.CANCELLED
    assert job.finished_at is not None
    assert not jobs.claim(job_id)
    pending(jobs)  # and the model is free


def test_a_running_job_that_is_cancelled_hears_of_it_at_its_next_report(jobs: RetrainJobs) -> None:
    job_id = running(jobs)
    jobs.report(job_id, "reading", 0.1, "reads")

    job = jobs.request_cancel(job_id)

    assert (job.state, job.cancel_requested, job.finished_at) == (JobState.RUNNING, True, None)
    with pytest.raises(JobCancelledError, match=job_id):
        jobs.report(job_id, "fitting", 0.5, "fits")
    assert jobs.finish(job_id, JobState.CANCELLED, "cancelled while fitting")
    assert jobs.get(job_id).state is JobState.CANCELLED


def test_a_job_is_entered_and_cancelled_by_one_transaction_each_so_that_no_error_follows_the_effect(
    jobs: RetrainJobs, engine: Engine
) -> None:
    begun: list[object] = []
    event.listen(engine, "begin", begun.append)

    job = jobs.create(MODEL, {}, "Ann")
    assert len(begun) == 1
    cancelled = jobs.request_cancel(job.id)
    assert len(begun) == 2

    assert (job.state, cancelled.state) == (JobState.PENDING, JobState.CANCELLED)
    assert jobs.get(job.id) == cancelled


@pytest.mark.parametrize("state", FINAL)
def test_a_job_that_was_declared_over_hears_of_it_at_its_next_report(jobs: RetrainJobs, state: JobState) -> None:
    job_id = running(jobs)
    jobs.finish(job_id, state, "declared over")

    with pytest.raises(JobCancelledError):
        jobs.report(job_id, "fitting", 0.5, "fits")

    job = jobs.get(job_id)
    assert (job.state, job.message, job.phase) == (state, "declared over", "")


def test_a_job_that_was_not_claimed_may_not_report(jobs: RetrainJobs) -> None:
    job_id = pending(jobs)

    with pytest.raises(JobCancelledError):
        jobs.report(job_id, "fitting", 0.5, "fits")

    assert jobs.get(job_id).phase == ""


@pytest.mark.parametrize("second", FINAL)
@pytest.mark.parametrize("first", FINAL)
def test_a_job_finishes_once(jobs: RetrainJobs, first: JobState, second: JobState) -> None:
    job_id = running(jobs)

    assert jobs.finish(job_id, first, "first", version=1)
    over = jobs.get(job_id)

    assert not jobs.finish(job_id, second, "second", version=2)
    assert jobs.get(job_id) == over


def test_cancelling_a_job_that_is_over_changes_nothing(jobs: RetrainJobs) -> None:
    job_id = running(jobs)
    jobs.finish(job_id, JobState.SUCCEEDED, "blessed")
    over = jobs.get(job_id)

    assert jobs.request_cancel(job_id) == over


def test_of_threads_that_finish_and_cancel_at_once_one_decides(jobs: RetrainJobs) -> None:
    job_id = running(jobs)
    start = Barrier(8)

    def finish(thread: int) -> JobState | None:
        state = FINAL[thread % len(FINAL)]
        start.wait()
        return state if jobs.finish(job_id, state, str(thread)) else None

    with ThreadPoolExecutor(8) as threads:
        decided = [state for state in threads.map(finish, range(8)) if state is not None]

    assert decided == [jobs.get(job_id).state]


def test_a_job_that_does_not_exist_is_not_found(jobs: RetrainJobs) -> None:
    with pytest.raises(NotFoundError, match="no retrain job 'nobody'"):
        jobs.get("nobody")
    with pytest.raises(NotFoundError):
        jobs.request_cancel("nobody")
    assert not jobs.claim("nobody")
    assert not jobs.finish("nobody", JobState.FAILED, "")


def test_jobs_are_listed_newest_first_of_one_model_or_of_all(jobs: RetrainJobs) -> None:
    created = []
    for model in ("cats", "dogs", "cats", "dogs", "cats"):
        created.append(running(jobs, model))
        jobs.finish(created[-1], JobState.REFUSED, "over")

    assert [job.id for job in jobs.list()] == created[::-1]
    assert [job.id for job in jobs.list("cats")] == [created[4], created[2], created[0]]
    assert [job.id for job in jobs.list("dogs")] == [created[3], created[1]]
    assert jobs.list("birds") == []


def test_jobs_can_be_asked_for_by_state(jobs: RetrainJobs) -> None:
    cats, dogs, over = pending(jobs, "cats"), running(jobs, "dogs"), running(jobs, "birds")
    jobs.finish(over, JobState.FAILED, "over")

    assert [job.id for job in jobs.list("", JobState.PENDING)] == [cats]
    assert [job.id for job in jobs.list("", JobState.RUNNING)] == [dogs]
    assert [job.id for job in jobs.list("birds", JobState.FAILED)] == [over]
    assert jobs.list("cats", JobState.RUNNING) == []


def test_a_job_that_another_process_claimed_meanwhile_is_not_put_back(jobs: RetrainJobs) -> None:
    job_id = pending(jobs)
    seen = jobs.get(job_id)
    jobs.claim(job_id)

    assert not jobs.put_back(seen, "its process was killed before it claimed the job")
    assert (jobs.get(job_id).state, jobs.get(job_id).interrupted) == (JobState.RUNNING, "")


def test_jobs_survive_reopening(database: str) -> None:
    engine = open_database(database)
    job = RetrainJobs(engine).create(MODEL, {"seed": 1}, "Ann")
    engine.dispose()

    engine = open_database(database)
    again = RetrainJobs(engine)

    assert again.list() == [job]
    with pytest.raises(PreconditionError, match=job.id):
        again.create(MODEL, {}, "Ben")
    engine.dispose()


def test_two_processes_worth_of_engines_see_each_others_changes(database: str) -> None:
    servers_engine, childs_engine = open_database(database), open_database(database)
    server, child = RetrainJobs(servers_engine), RetrainJobs(childs_engine)

    job_id = pending(server)
    assert child.claim(job_id)
    server.request_cancel(job_id)

    with pytest.raises(JobCancelledError):
        child.report(job_id, "fitting", 0.5, "fits")
    assert server.get(job_id).phase == "fitting"
    servers_engine.dispose()
    childs_engine.dispose()


def test_a_database_whose_tables_are_gone_is_a_storage_error(jobs: RetrainJobs, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE retrain_jobs")

    with pytest.raises(StorageError, match="cannot read the retrain job"):
        jobs.get("x")
    with pytest.raises(StorageError, match="cannot enter the retrain job"):
        pending(jobs)
    with pytest.raises(StorageError, match="cannot update the retrain job"):
        jobs.claim("x")


@settings(max_examples=40)
@given(
    moves=st.lists(st.sampled_from(["claim", "report", "cancel", "put back", *FINAL]), max_size=8),
)
def test_any_sequence_of_moves_does_what_a_simple_model_does(
    moves: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    engine = open_database(sqlite_url(tmp_path_factory.mktemp("jobs") / "jobs.sqlite"))
    jobs = RetrainJobs(engine)
    job_id, state, cancelled, put_back = pending(jobs), JobState.PENDING, False, False

    for move in moves:
        if move == "claim":
            assert jobs.claim(job_id) == (state is JobState.PENDING)
            state = JobState.RUNNING if state is JobState.PENDING else state
        elif move == "report" and state is JobState.RUNNING and not cancelled:
            jobs.report(job_id, "fitting", 0.5, "fits")
        elif move == "report":
            with pytest.raises(JobCancelledError):
                jobs.report(job_id, "fitting", 0.5, "fits")
        elif move == "cancel":
            jobs.request_cancel(job_id)
            cancelled = cancelled or state is JobState.RUNNING
            state = JobState.CANCELLED if state is JobState.PENDING else state
        elif move == "put back":
            may = not (state.is_final or cancelled or put_back)
            assert jobs.put_back(jobs.get(job_id), "interrupted") == may
            state, put_back = (JobState.PENDING, True) if may else (state, put_back)
        else:
            assert jobs.finish(job_id, JobState(move), "over") == (not state.is_final)
            state = state if state.is_final else JobState(move)

        job = jobs.get(job_id)
        assert (job.state, job.cancel_requested, job.interrupted != "") == (state, cancelled, put_back)
        assert (job.finished_at is not None) == state.is_final
    engine.dispose()
