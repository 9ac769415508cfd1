from pathlib import Path

import pytest

from regraft.label_rules import image_hash
from regraft.stores.jobs import RetrainJob
from serving.rpc.retraining import to_message
from tests.tiny import picture
from tests.training.workshop import MODEL, new_pictures, open_workshop
from training.retrain.evidence import MOST_SUSPECTED


def after_mallory(root: Path, wrong: int, train: int = 80) -> tuple[RetrainJob, list[str]]:
    """Retrain on red pictures, so many of which Mallory called blue; return the job and their hashes."""
    workshop = open_workshop(root, train=train)
    pictures = new_pictures("red", 20 + wrong, 6)
    workshop.add("red", [*pictures[:20], *pictures[20 + wrong :]])
    for data in pictures[20 : 20 + wrong]:
        workshop.examples.add(MODEL, data, "blue", source="Mallory")
    job = workshop.retrain()
    workshop.examples.close()
    return job, [image_hash(data) for data in pictures[20 : 20 + wrong]]


def test_the_verdict_names_the_labels_that_are_likely_wrong(tmp_path: Path) -> None:
    job, wrong = after_mallory(tmp_path, 8)

    assert job.verdict is not None
    suspected = job.verdict["suspected"]
    assert {entry["sha256"] for entry in suspected} == {*wrong}
    assert {(entry["label"], entry["answer"], entry["source"]) for entry in suspected} == {("blue", "red", "Mallory")}


def test_of_very_many_suspects_the_verdict_names_the_worst(tmp_path: Path) -> None:
    job, wrong = after_mallory(tmp_path, 40, train=400)

    assert job.verdict is not None
    suspected = job.verdict["suspected"]
    assert job.verdict["suspects"] > MOST_SUSPECTED
    assert len(suspected) == MOST_SUSPECTED
    assert {entry["sha256"] for entry in suspected} < {*wrong}
    least_probable = [entry["label_probability"] for entry in suspected]
    assert least_probable == sorted(least_probable)


def test_the_names_reach_the_client(tmp_path: Path) -> None:
    job, _ = after_mallory(tmp_path, 8)

    assert job.verdict is not None
    sent, (worst, *_) = to_message(job).verdict.suspected, job.verdict["suspected"]
    assert len(sent) == 8
    assert (sent[0].sha256, sent[0].label, sent[0].answer) == (worst["sha256"], "blue", "red")
    assert sent[0].probability == pytest.approx(worst["probability"])


def test_labels_that_nobody_doubts_are_not_named(tmp_path: Path) -> None:
    workshop = open_workshop(tmp_path)
    workshop.add("red", [picture("red", number) for number in range(1000, 1010)])

    job = workshop.retrain()

    workshop.examples.close()
    assert job.verdict is not None
    assert job.verdict["suspected"] in ([], ())
