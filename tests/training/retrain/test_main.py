import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState
from regraft.stores.recovery import TAKEN, job_lock
from tests.training.conftest import (
    block,
    in_a_child,
)
from tests.training.workshop import MODEL, Workshop, new_pictures, open_workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def command(workshop: Workshop, *arguments: str) -> list[str]:
    return ["-m", "training.retrain", "--store", str(workshop.store.root), *arguments]


def test_the_program_retrains_a_model_by_name_and_never_imports_torch(workshop: Workshop, tmp_path: Path) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    environment = block(
        tmp_path / "blocked", ("torch", "torchvision", "timm"), "raise SystemExit('torch was imported')"
    )

    child = in_a_child(command(workshop, "--name", MODEL), environment)

    assert child.returncode == 0, child.stderr
    assert workshop.store.champion(MODEL) == 2
    (job,) = workshop.examples.jobs.list(MODEL)
    assert (job.state, job.version) == (JobState.SUCCEEDED, 2)
    assert f"job {job.id} of {MODEL}: SUCCEEDED" in child.stderr


def test_the_program_runs_a_job_that_somebody_entered_and_a_refusal_is_no_failure(
    workshop: Workshop, tmp_path: Path
) -> None:
    examples = ExamplesStore(tmp_path / "elsewhere")
    for colour, wrong in (("red", "blue"), ("blue", "red")):
        for data in new_pictures(colour, 60, 6):
            examples.add(MODEL, data, wrong)
    job = examples.jobs.create(MODEL, {}, "Ann")

    child = in_a_child(command(workshop, "--examples", str(tmp_path / "elsewhere"), "--job", job.id))

    job = examples.jobs.get(job.id)
    examples.close()
    assert child.returncode == 0, child.stderr
    assert job.state is JobState.REFUSED
    assert workshop.store.champion(MODEL) == 1


def test_the_program_goes_on_with_what_a_killed_one_left_behind(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    orphan = workshop.examples.jobs.create(MODEL, {}, "Ann")
    assert workshop.examples.jobs.claim(orphan.id)

    child = in_a_child(command(workshop, "--name", MODEL))

    assert child.returncode == 0, child.stderr
    (job,) = workshop.examples.jobs.list(MODEL)
    assert (job.id, job.state, job.version) == (orphan.id, JobState.SUCCEEDED, 2)
    assert "second attempt; the first was interrupted in phase 'start'" in job.message
    assert workshop.store.champion(MODEL) == 2


def test_the_program_leaves_interrupted_jobs_of_other_models_to_those_who_would_run_them(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    other = workshop.examples.jobs.create("shades", {}, "Ann")
    assert workshop.examples.jobs.claim(other.id)

    child = in_a_child(command(workshop, "--name", MODEL))

    assert child.returncode == 0, child.stderr
    assert workshop.examples.jobs.get(other.id).state is JobState.RUNNING


def test_the_program_takes_up_a_job_that_waits(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    waiting = workshop.examples.jobs.create(MODEL, {}, "Ann")

    child = in_a_child(command(workshop, "--name", MODEL))

    assert child.returncode == 0, child.stderr
    assert workshop.examples.jobs.get(waiting.id).state is JobState.SUCCEEDED


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the memory's size")
@pytest.mark.parametrize(
    ("limit_mb", "state", "message"),
    [
        (1, JobState.FAILED, "it needs more memory than its limit of 1 MB, and had "),
        (4000, JobState.SUCCEEDED, "version 2 is the champion"),
    ],
)
def test_the_program_keeps_to_its_memory_or_says_that_it_cannot(
    workshop: Workshop, limit_mb: int, state: JobState, message: str
) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    child = in_a_child(command(workshop, "--name", MODEL, "--memory-mb", str(limit_mb)))

    (job,) = workshop.examples.jobs.list(MODEL)
    assert job.state is state, child.stderr
    assert job.message.startswith(message)
    assert message in child.stderr
    assert child.returncode == (0 if state is JobState.SUCCEEDED else 1)


@pytest.mark.parametrize(
    ("flags", "variable", "champion"),
    [
        ([], {}, 2),
        (["--gate", "manual"], {}, 1),
        ([], {"REGRAFT_GATE": "manual"}, 1),
        (["--gate", "auto"], {"REGRAFT_GATE": "manual"}, 2),
    ],
)
def test_the_program_lets_the_gate_or_a_person_have_the_last_word_as_it_is_told(
    workshop: Workshop, flags: list[str], variable: dict[str, str], champion: int
) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    child = in_a_child(command(workshop, "--name", MODEL, *flags), {**os.environ, **variable})

    assert child.returncode == 0, child.stderr
    assert workshop.store.versions(MODEL) == [1, 2]
    assert workshop.store.champion(MODEL) == champion


def test_the_program_refuses_a_mode_of_the_gate_that_there_is_not_and_enters_no_job(workshop: Workshop) -> None:
    child = in_a_child(command(workshop, "--name", MODEL), {**os.environ, "REGRAFT_GATE": "maybe"})

    assert child.returncode == 1
    assert "REGRAFT_GATE: 'maybe' is none of auto, manual, off" in child.stderr
    assert workshop.examples.jobs.list(MODEL) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("no url", "Could not parse SQLAlchemy URL"),
        ("sqlite:////no/such/folder/examples.sqlite", "No such file or directory"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/nothing", "Connection refused"),
    ],
)
def test_a_database_that_refuses_is_an_error_in_one_line(workshop: Workshop, url: str, says: str) -> None:
    child = in_a_child(command(workshop, "--name", MODEL, "--database", url))

    assert child.returncode == 1
    (line,) = child.stderr.splitlines()
    assert " ERROR regraft.retrain: " in line
    assert says in line


def test_a_disk_that_is_full_ends_the_program_and_leaves_both_stores_whole(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    job = workshop.examples.jobs.create(MODEL, {}, "Ann")
    program = (
        "import resource, sys, training.retrain.__main__ as retrain;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); sys.exit(retrain.main(sys.argv[1:]))"
    )

    child = in_a_child(["-c", program, *command(workshop, "--job", job.id)[2:]])

    assert child.returncode == 1
    assert "Traceback" not in child.stderr
    assert workshop.store.versions(MODEL) == [1]
    after = in_a_child(command(workshop, "--name", MODEL))
    assert after.returncode == 0, after.stderr
    assert workshop.store.champion(MODEL) == 2


def test_the_program_says_why_it_failed_and_exits_with_one(workshop: Workshop) -> None:
    child = in_a_child(command(workshop, "--name", "nobody"))

    assert child.returncode == 1
    assert "model 'nobody' has no champion to improve on" in child.stderr
    assert "Traceback" not in child.stderr


def test_the_program_refuses_a_model_that_another_process_retrains(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    job = workshop.examples.jobs.create(MODEL, {}, "Ann")

    with job_lock(workshop.examples, MODEL):
        child = in_a_child(command(workshop, "--job", job.id))

    assert child.returncode == TAKEN
    assert "being retrained by another process" in child.stderr
    assert workshop.examples.jobs.get(job.id).state is JobState.PENDING
    assert workshop.store.versions(MODEL) == [1]


def test_the_program_refuses_a_name_that_no_model_can_have_and_writes_nothing_outside(
    workshop: Workshop, tmp_path: Path
) -> None:
    child = in_a_child(command(workshop, "--name", "../../outside"))

    assert child.returncode == 1
    assert "model name '../../outside'" in child.stderr
    assert "Traceback" not in child.stderr
    assert not list(tmp_path.rglob("outside*"))
