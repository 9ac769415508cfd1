import json
from pathlib import Path

from benchmarks.chaos_callers import Answered, Told
from benchmarks.chaos_check import (
    FOLLOWS_WITHIN_S,
    check_answers,
    check_audit,
    check_classified,
    check_jobs,
    check_labels,
    check_moves,
    check_versions,
    right_answers,
)
from regraft.stores.jobs import JobState
from regraft.stores.lifecycle.history import HistoryEntry
from regraft.stores.models import ModelStore
from tests.tiny import picture

T0 = 1_700_000_000
AT = "2023-11-14T22:13:{:02}+00:00"  # that is T0 - 20 + seconds
PUBLISHED = [HistoryEntry("publish", version, None, "test", "", "", AT.format(0)) for version in (1, 2)]


def moved(event: str, version: int, previous: int | None, why: str, second: int, job: str = "") -> HistoryEntry:
    return HistoryEntry(event, version, previous, "ada", why, job, AT.format(20 + second))  # type: ignore[arg-type]


FIRST = moved("promote", 1, None, "first", 0)


def promoted(code: str, why: str = "a", wanted: int = 2, ended: float = 6.0) -> Told:
    return Told("promote", why, T0 + 4, T0 + ended, code, wanted, wanted=wanted)


def verdicts(told: list[Told], *moves: HistoryEntry) -> dict[str, bool]:
    return {line.what: line.ok for line in check_moves(told, [*PUBLISHED, FIRST, *moves])}


def test_an_answer_is_right_by_the_file_of_its_version_alone(store: ModelStore) -> None:
    images = [picture("red", 1), picture("blue", 2)]
    right = right_answers(store, "colours", images)
    labels, probabilities = right[1]
    sure = float(probabilities[1].max())
    good = Answered(T0, T0, "OK", 1, 1, labels[int(probabilities[1].argmax())], sure)
    bad = [
        Answered(T0, T0, "OK", 1, 1, "red", sure),
        Answered(T0, T0, "OK", 1, 1, "blue", sure - 0.01),
        Answered(T0, T0, "OK", 1, 2, "blue", sure),
        Answered(T0, T0, "OK", 0, 1, "blue", sure),
    ]

    assert good.label == "blue"
    assert check_answers([good], right).ok
    assert [check_answers([each], right).ok for each in bad] == [False] * 4


def test_what_is_refused_in_plenty_or_fails_at_all_is_broken() -> None:
    good = [Answered(T0, T0, "OK", 0)] * 200
    refused, failed = Answered(T0, T0, "RESOURCE_EXHAUSTED", 0), Answered(T0, T0, "UNAVAILABLE", 0)

    assert [line.ok for line in check_classified([*good, refused])] == [True, True]
    assert [line.ok for line in check_classified([*good, *[refused] * 10])] == [True, False]
    assert [line.ok for line in check_classified([*good, failed])] == [False, True]


def test_answers_come_from_the_champion_as_soon_as_its_mover_was_told() -> None:
    history = [*PUBLISHED, FIRST, moved("promote", 2, 1, "a", 5)]
    told = [Told("promote", "first", T0, T0 + 1, "OK"), promoted("OK")]

    def by(version: int, second: float) -> bool:
        return check_versions([Answered(T0 + second, T0 + second + 0.1, "OK", 0, version)], told, history).ok

    assert by(1, 3)
    assert not by(2, 3)
    assert by(1, 5.5)  # while it moves, either may answer
    assert by(2, 5.5)
    assert by(2, 7)
    assert not by(1, 7)


def test_a_champion_that_nobody_was_told_of_is_followed_after_a_while() -> None:
    history = [*PUBLISHED, FIRST, moved("promote", 2, 1, "late", 5)]
    late = T0 + 5 + FOLLOWS_WITHIN_S + 1

    assert check_versions([Answered(T0 + 6, T0 + 6, "OK", 0, 1)], [], history).ok
    assert not check_versions([Answered(late, late, "OK", 0, 1)], [], history).ok


def test_a_move_told_ok_happened_once_and_one_told_an_error_did_not() -> None:
    falsely = "moves told falsely"
    move = moved("promote", 2, 1, "a", 5)

    assert verdicts([promoted("OK")], move)[falsely]
    assert not verdicts([promoted("OK")])[falsely]
    assert not verdicts([promoted("OK")], move, moved("promote", 2, 2, "a", 6))[falsely]
    assert not verdicts([promoted("OK", wanted=1)], move)[falsely]
    assert not verdicts([promoted("FAILED_PRECONDITION")], move)[falsely]
    assert verdicts([promoted("UNAVAILABLE")], move)[falsely]
    assert verdicts([promoted("UNAVAILABLE")])[falsely]


def test_a_move_that_took_effect_after_its_caller_had_gone_is_found() -> None:
    late = "moves that took effect after their caller had gone"
    move = moved("promote", 2, 1, "a", 30)

    assert not verdicts([promoted("DEADLINE_EXCEEDED")], move)[late]
    assert verdicts([promoted("DEADLINE_EXCEEDED", ended=30)], move)[late]


def test_two_rollbacks_from_one_champion_go_back_once() -> None:
    twins = [Told("rollback", why, T0 + 6, T0 + 8, "OK", 1, wanted=2) for why in ("b", "c")]
    moves = [moved("promote", 2, 1, "a", 5), moved("rollback", 1, 2, "b", 7)]
    what = "rollbacks from another champion than the caller's"

    assert verdicts(twins, *moves)[what]
    assert not verdicts(twins, *moves, moved("rollback", 1, 1, "c", 7))[what]


def test_a_history_that_skips_a_champion_contradicts_itself() -> None:
    what = "lines of the history that contradict each other"

    assert verdicts([], moved("promote", 2, 1, "a", 5))[what]
    assert not verdicts([], moved("promote", 2, 2, "a", 5))[what]
    assert not verdicts([], moved("promote", 3, 1, "a", 5))[what]


def test_a_label_told_kept_is_kept_once_under_its_label() -> None:
    def ok(code: str, outcome: str, kept: list[str]) -> bool:
        return check_labels([Told("label", "7", T0, T0, code, 0, outcome)], {"7": kept}, {"7": "red"}).ok

    assert ok("OK", "ACCEPTED", ["red"])
    assert not ok("OK", "ACCEPTED", [])
    assert not ok("OK", "ACCEPTED", ["red", "red"])
    assert not ok("OK", "ACCEPTED", ["blue"])
    assert not ok("OK", "REJECTED", ["red"])
    assert ok("UNAVAILABLE", "", [])
    assert ok("UNAVAILABLE", "", ["red"])


def test_a_retrain_told_of_is_there_and_ended_as_told() -> None:
    class Job:
        id, state = "j", JobState.SUCCEEDED

    done = [HistoryEntry("publish", 3, 1, "ada", "", "j", AT.format(1)), moved("promote", 3, 1, "", 1, "j")]

    def ok(code: str, job: str, outcome: str, jobs: dict[str, Job], history: list[HistoryEntry]) -> bool:
        return check_jobs([Told("retrain", "k", T0, T0, code, 0, outcome, job)], jobs, history).ok

    assert ok("OK", "j", "SUCCEEDED", {"k": Job()}, done)
    assert not ok("OK", "j", "SUCCEEDED", {"k": Job()}, done[:1])
    assert not ok("OK", "j", "FAILED", {"k": Job()}, done)
    assert not ok("OK", "j", "SUCCEEDED", {}, done)
    assert not ok("FAILED_PRECONDITION", "", "", {"k": Job()}, done)
    assert ok("UNAVAILABLE", "", "", {"k": Job()}, done)


def test_the_audit_says_ok_of_what_happened_and_of_nothing_else(tmp_path: Path) -> None:
    log, history = tmp_path / "log", [FIRST, moved("promote", 2, 1, "a", 5)]

    def ok(outcome: str, entries: list[HistoryEntry]) -> bool:
        line = json.dumps({"request": {"why": "a"}, "outcome": outcome})
        log.write_text(f"{json.dumps({'logger': 'regraft.audit', 'message': line})}\n")
        return check_audit(log, [promoted("OK")], entries, ()).ok

    assert ok("OK", history)
    assert not ok("CANCELLED", history)
    assert not ok("OK", history[:1])
    assert ok("UNAVAILABLE", history[:1])
