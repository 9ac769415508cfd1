import json
import os
import subprocess
import sys

import pytest

from regraft.cli.json_output import message_to_dict
from regraft.client.message_values import to_timestamp
from regraft.v1 import examples_pb2, retraining_pb2

PROGRAM = """
from regraft.cli.json_output import print_json
print_json({"label": "Möwe"})
"""


@pytest.mark.parametrize(("encoding", "said"), [("ascii", "M\\u00f6we"), ("latin-1", "M\\u00f6we"), ("utf-8", "Möwe")])
def test_json_is_json_whatever_the_terminal_can_write(encoding: str, said: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    printed = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout

    assert said in printed.decode()
    assert json.loads(printed) == {"label": "Möwe"}


def test_a_message_is_printed_with_times_as_the_stores_have_them_and_states_as_words() -> None:
    verdict = retraining_pb2.Verdict(blessed=True, holdout_images=2**40)
    job = retraining_pb2.RetrainJob(
        id="a1", state="STATE_SUCCEEDED", verdict=verdict, created_at=to_timestamp("2026-11-30T19:20:45.000123+00:00")
    )

    fields = message_to_dict(job)

    assert (fields["state"], fields["created_at"]) == ("SUCCEEDED", "2026-11-30T19:20:45.000123+00:00")
    assert fields["finished_at"] == "", "it is not finished"
    assert fields["verdict"]["holdout_images"] == 2**40


def test_times_and_words_within_a_message_are_printed_likewise() -> None:
    history = [examples_pb2.Labelling(label="red", at=to_timestamp("2026-11-30T19:20:45+00:00"))]
    answer = examples_pb2.GetExampleResponse(history=history)

    assert message_to_dict(answer)["history"][0]["at"] == "2026-11-30T19:20:45+00:00"
    assert message_to_dict(examples_pb2.Suggestion(reason="REASON_RANDOM"))["reason"] == "RANDOM"
