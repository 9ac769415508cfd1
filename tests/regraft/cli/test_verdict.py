import shlex

import pytest

from regraft.cli.client.retrain import show_job
from regraft.cli.json_output import message_to_dict
from regraft.v1 import retraining_pb2 as pb


def refused(*answers: str, suspects: int) -> pb.RetrainJob:
    suspected = [
        pb.SuspectLabel(sha256=f"{row:x}" * 64, label="blue", answer=answer, probability=0.98, source="Mallory")
        for row, answer in enumerate(answers)
    ]
    verdict = pb.Verdict(new_images=9, suspects=suspects, suspected=suspected)
    return pb.RetrainJob(name="colours", state=pb.RetrainJob.STATE_REFUSED, message="likely wrong", verdict=verdict)


def test_each_label_that_is_likely_wrong_is_shown_with_the_command_that_puts_it_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_job(refused("red", "pale red", "-red", suspects=3))

    lines = capsys.readouterr().out.splitlines()
    assert "000000000000 from Mallory: called blue, read as red (0.98)" in lines
    assert [shlex.split(line) for line in lines if "regraft" in line] == [
        ["regraft", "examples", "relabel", "--name", "colours", "000000000000", "red"],
        ["regraft", "examples", "relabel", "--name", "colours", "111111111111", "pale red"],
        ["regraft", "examples", "relabel", "--name", "colours", "222222222222", "--", "-red"],
    ]
    assert lines[-1] == "look before you relabel: report.html of the version has the pictures"


def test_suspects_beyond_those_that_are_named_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    show_job(refused("red", suspects=5))

    assert capsys.readouterr().out.splitlines()[-1].endswith("has the pictures, and 4 more")


def test_where_no_label_is_suspected_nothing_is_said_of_relabelling(capsys: pytest.CaptureFixture[str]) -> None:
    show_job(refused(suspects=0))

    assert "relabel" not in capsys.readouterr().out


def test_machines_are_given_them_too() -> None:
    (entry,) = message_to_dict(refused("red", suspects=1))["verdict"]["suspected"]

    assert (entry["sha256"], entry["label"], entry["answer"]) == ("0" * 64, "blue", "red")


def test_what_is_in_quarantine_is_counted_with_the_commands_that_list_and_release_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = refused("red", suspects=1)
    job.verdict.quarantined, job.verdict.in_quarantine = 1, 3

    show_job(job)

    shown = capsys.readouterr().out
    assert "3 labels are in quarantine, 1 of them since this retrain" in " ".join(shown.split())
    assert "regraft examples list --quarantined --name colours" in shown
    assert "regraft examples release HASH" in shown


def test_a_first_version_is_shown_with_its_evidence_and_no_champion(capsys: pytest.CaptureFixture[str]) -> None:
    first = pb.FirstEvidence(
        images=16, cross_validated_accuracy=0.9375, low=0.717, high=0.989, holdout_images=4, holdout_accuracy=1
    )
    show_job(pb.RetrainJob(name="colours", verdict=pb.Verdict(blessed=True, new_images=20, first=first)))

    out = capsys.readouterr().out
    assert "training images, out of fold" in out
    assert "0.717 to 0.989" in out
    assert "1.0000" in out
    assert "champion" not in out
    assert "likely wrong: 0 of 20 new labels\n" in out
