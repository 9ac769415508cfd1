import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.errors import ArtifactError
from regraft.gate_limits import GateLimits
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, GateMode
from regraft.stores.recovery import settle_interrupted
from tests.training.workshop import MODEL, Workshop, first_version, open_workshop
from training.evaluation.findings import Findings
from training.gate.judge import Answers, judge
from training.gate.verdict import Verdict
from training.retrain.outcome import Published, conclude, published_before, reason, reason_of
from training.versions.publish import publish


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def verdict(*, blessed: bool, suspects: int = 0) -> Verdict:
    """Return what the gate says of two heads that answer alike, where it has a floor that they do not reach or none."""
    answers = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    limits = GateLimits() if blessed else GateLimits(min_accuracy=100)
    return replace(judge(Answers(answers, answers, np.zeros(4, np.int64), ("red", "blue")), limits), suspects=suspects)


def running(workshop: Workshop, **settings: Any) -> RetrainJob:  # noqa: ANN401 - any JSON
    job = workshop.examples.jobs.create(MODEL, settings, "Ann")
    workshop.examples.jobs.claim(job.id)
    return workshop.examples.jobs.get(job.id)


def published(workshop: Workshop, job: RetrainJob, seen: Verdict) -> Published:
    """Publish a version as a retrain does, just before it promotes it or does not."""
    why = reason(job, seen)
    findings = Findings(verdict=seen)
    challenger = first_version(20, 8)
    version = publish(workshop.store, challenger, left_out=[], who="Ann", why=why, job=job.id, findings=findings)
    return Published(version, 1, why, seen.to_dict())


def test_a_refusal_for_labels_that_are_likely_wrong_says_where_they_are_shown(workshop: Workshop) -> None:
    job = running(workshop)

    conclude(workshop.store, workshop.examples, job, published(workshop, job, verdict(blessed=False, suspects=3)))

    ended = workshop.examples.jobs.get(job.id)
    assert ended.state is JobState.REFUSED
    assert ended.message.endswith(f"; likely wrong labels are in {workshop.store.folder(MODEL, 2) / REPORT_FILE}")


def test_a_refusal_for_other_reasons_says_these_alone(workshop: Workshop) -> None:
    job = running(workshop)

    conclude(workshop.store, workshop.examples, job, published(workshop, job, verdict(blessed=False)))

    assert workshop.examples.jobs.get(job.id).message == "accuracy 0.7500 is below the floor of 100 %"


def test_a_version_whose_file_was_damaged_since_it_was_published_does_not_become_the_champion(
    workshop: Workshop,
) -> None:
    """Invariant 2."""
    job = running(workshop)
    made = published(workshop, job, verdict(blessed=True))
    file = workshop.store.folder(MODEL, made.version) / MODEL_FILE
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(ArtifactError, match=str(file)):
        conclude(workshop.store, workshop.examples, job, made)

    assert workshop.store.champion(MODEL) == 1
    assert published_before(workshop.store, job) is None, "a second attempt publishes another one"


@pytest.mark.parametrize(
    ("blessed", "gate", "expected"),
    [
        (True, GateMode.AUTO, "refresh: holdout accuracy 0.7500 -> 0.7500"),
        (True, GateMode.OFF, "refresh: holdout accuracy 0.7500 -> 0.7500"),
        (False, GateMode.AUTO, "refused: accuracy 0.7500 is below the floor of 100 %"),
        (False, GateMode.MANUAL, "refused: accuracy 0.7500 is below the floor of 100 %"),
        (
            False,
            GateMode.OFF,
            "refresh: holdout accuracy 0.7500 -> 0.7500; the gate was off, and would have refused it: "
            "accuracy 0.7500 is below the floor of 100 %",
        ),
    ],
)
def test_the_history_is_told_what_the_gate_said_and_whether_it_was_heard(
    blessed: bool, gate: GateMode, expected: str
) -> None:
    assert reason_of("refresh", verdict(blessed=blessed), gate) == expected


@pytest.mark.parametrize("blessed", [True, False])
def test_a_job_that_is_settled_by_the_history_has_the_verdict_of_its_version(workshop: Workshop, blessed: bool) -> None:
    job = running(workshop)
    made = published(workshop, job, verdict(blessed=blessed, suspects=3))
    if blessed:
        workshop.store.move(MODEL, made.version, who="Ann", why=made.why, job=job.id, expected=1)

    settled = settle_interrupted(workshop.examples, workshop.store, job, "it was killed")

    assert settled is not None
    assert settled.state is (JobState.SUCCEEDED if blessed else JobState.REFUSED)
    assert settled.verdict == json.loads(json.dumps(made.verdict))


@pytest.mark.parametrize("report", ["{}", "[]", "no JSON"])
def test_a_job_whose_version_has_no_report_to_read_is_settled_all_the_same(workshop: Workshop, report: str) -> None:
    job = running(workshop)
    made = published(workshop, job, verdict(blessed=False))
    (workshop.store.folder(MODEL, made.version) / REPORT_JSON_FILE).write_text(report)

    settled = settle_interrupted(workshop.examples, workshop.store, job, "it was killed")

    assert settled is not None
    assert (settled.state, settled.verdict) == (JobState.REFUSED, None)
