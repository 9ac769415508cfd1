from dataclasses import replace
from datetime import UTC, datetime

import pytest

from regraft.stores.lifecycle.history import HistoryEntry
from serving.rollout.trial import AUTHOR, Quality, Trial, rollback_reasons, trial_of

GOOD = Quality(version=1, requests=500, failures=0, images=500, confidence=0.92, deviation=0.15, ks=0.05)
AT = "2026-03-01T12:00:00+00:00"


def promote(version: int, previous: int | None, who: str = "ada") -> HistoryEntry:
    return HistoryEntry("promote", version, previous, who, "", "", AT)


def rollback(version: int, previous: int, who: str = "ada") -> HistoryEntry:
    return HistoryEntry("rollback", version, previous, who, "", "", AT)


def shadow(version: int) -> HistoryEntry:
    return HistoryEntry("shadow", version, 1, "ada", "", "", AT)


ON_TRIAL = Trial(2, 1, datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("history", "trial"),
    [
        ([], None),
        ([promote(1, None)], None),  # there is nothing to go back to
        ([promote(1, None), promote(2, 1)], ON_TRIAL),
        ([promote(1, None), promote(2, 1), shadow(3)], ON_TRIAL),
        ([promote(1, None), promote(2, 1), rollback(1, 2)], None),
        ([promote(1, None), promote(2, 1), promote(2, 2)], None),  # somebody insists
        ([promote(1, None), promote(2, 1), rollback(1, 2, AUTHOR), promote(2, 1)], None),  # likewise
        ([promote(1, None), promote(2, 1), rollback(1, 2), promote(2, 1)], ON_TRIAL),  # a person went back before
        (
            [promote(1, None), promote(3, 1), rollback(1, 3, AUTHOR), promote(2, 1)],
            ON_TRIAL,
        ),  # that was another
        ([promote(1, None), promote(3, 1), promote(2, 3)], replace(ON_TRIAL, previous=3)),
    ],
)
def test_who_is_on_trial_is_read_from_the_history(history: list[HistoryEntry], trial: Trial | None) -> None:
    assert trial_of(history) == trial


def test_a_champion_that_does_as_the_one_before_stays() -> None:
    assert rollback_reasons(GOOD, GOOD) == []


def test_a_champion_that_is_better_stays() -> None:
    before = replace(GOOD, failures=50, confidence=0.6, ks=0.5)

    assert rollback_reasons(GOOD, before) == []


@pytest.mark.parametrize(
    ("worse", "reason"),
    [
        ({"failures": 20}, "4.0% of 500 requests failed (0.0% before; limit +2.0%)"),
        ({"confidence": 0.70}, "confidence 0.920 -> 0.700 over 500 pictures (limit -0.1)"),
        ({"ks": 0.40}, "drift KS 0.05 -> 0.40 over 500 pictures (limit +0.3)"),
    ],
)
def test_what_is_much_worse_is_said_with_its_figures(worse: dict[str, float], reason: str) -> None:
    assert rollback_reasons(replace(GOOD, **worse), GOOD) == [reason]  # type: ignore[arg-type]  # each has its type


@pytest.mark.parametrize("worse", [{"failures": 10}, {"confidence": 0.80}, {"ks": 0.35}])
def test_what_is_a_little_worse_is_borne(worse: dict[str, float]) -> None:
    assert rollback_reasons(replace(GOOD, **worse), GOOD) == []  # type: ignore[arg-type]  # as above


def test_errors_that_were_there_before_are_not_the_new_champions() -> None:
    assert rollback_reasons(replace(GOOD, failures=30), replace(GOOD, failures=25)) == []


def test_four_failures_may_be_anybodys_and_the_fifth_is_one_too_many() -> None:
    first = Quality(version=1, requests=4, failures=4, images=0, confidence=0.0, deviation=0.0, ks=None)

    assert rollback_reasons(first, GOOD) == []
    assert len(rollback_reasons(replace(first, requests=5, failures=5), GOOD)) == 1


def test_few_pictures_prove_nothing_of_confidence_and_drift() -> None:
    bad = replace(GOOD, confidence=0.4, ks=0.9)

    assert rollback_reasons(replace(bad, images=99), GOOD) == []
    assert rollback_reasons(bad, replace(GOOD, images=99)) == []
    assert len(rollback_reasons(replace(bad, images=100), replace(GOOD, images=100))) == 2


def test_where_confidence_varies_much_a_drop_must_be_larger() -> None:
    before = replace(GOOD, images=100, deviation=0.35)
    now = replace(before, confidence=GOOD.confidence - 0.2)

    assert rollback_reasons(now, before) == []
    assert rollback_reasons(replace(now, images=5000), replace(before, images=5000))


def test_drift_that_is_not_known_counts_for_nothing() -> None:
    assert rollback_reasons(replace(GOOD, ks=0.9), replace(GOOD, ks=None)) == []
    assert rollback_reasons(replace(GOOD, ks=None), GOOD) == []


def test_where_the_one_before_is_not_known_errors_alone_count() -> None:
    assert rollback_reasons(replace(GOOD, confidence=0.3, ks=0.9), None) == []
    assert len(rollback_reasons(replace(GOOD, failures=100), None)) == 1
