from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from regraft.client.message_values import time_text, to_timestamp, word_of
from regraft.files import utc_now
from regraft.v1 import retraining_pb2 as pb


@given(st.datetimes(datetime(2000, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_time_comes_back_from_a_message_as_the_same_text(time: datetime) -> None:
    text = time.replace(tzinfo=UTC).isoformat()

    assert time_text(to_timestamp(text)) == text
    assert time_text(to_timestamp(utc_now())) <= utc_now()


def test_a_time_without_a_zone_is_of_utc_and_others_are_converted() -> None:
    assert time_text(to_timestamp("2026-05-01")) == "2026-05-01T00:00:00+00:00"
    assert time_text(to_timestamp("2026-05-01T02:00+05:30")) == "2026-04-30T20:30:00+00:00"


def test_a_time_that_is_not_set_is_an_empty_text() -> None:
    assert time_text(Timestamp()) == ""
    assert time_text(pb.RetrainJob().finished_at) == ""


@pytest.mark.parametrize(
    ("name", "word"),
    [("OUTCOME_ACCEPTED", "ACCEPTED"), ("OUTCOME_UNSPECIFIED", "UNSPECIFIED")],
)
def test_an_outcome_is_a_word(name: str, word: str) -> None:
    assert word_of(pb.AddExamplesResponse.Outcome, pb.AddExamplesResponse.Outcome.Value(name)) == word


def test_a_state_and_a_mode_are_words_too() -> None:
    assert word_of(pb.GateMode, pb.GATE_MODE_AUTO) == "AUTO"
    assert word_of(pb.RetrainJob.State, pb.RetrainJob.STATE_SUCCEEDED) == "SUCCEEDED"
