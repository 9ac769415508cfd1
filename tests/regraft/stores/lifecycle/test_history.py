import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import OperatorError
from regraft.stores.lifecycle.history import (
    Beginning,
    Event,
    Histories,
    HistoryEntry,
    append,
    beginning_of,
    champions_of,
    deletion_of,
    shadow_of,
)

BEGINNING = Beginning("d" * 64, "tiny", ("red", "blue"), "closed")


def entry(event: Event, version: int = 0, beginning: Beginning | None = None) -> HistoryEntry:
    return HistoryEntry(event, version, None, "Ann", "a test", "", "2026-01-01T00:00:00+00:00", beginning)


def test_a_line_comes_back_as_it_was_written(tmp_path: Path) -> None:
    lines = [entry("create", 0, BEGINNING), entry("publish", 1), entry("promote", 1), entry("delete")]
    for line in lines:
        append(tmp_path, line)

    assert Histories().of(tmp_path) == lines


def test_only_a_line_that_begins_a_model_has_a_beginning_so_that_an_older_regraft_reads_the_others(
    tmp_path: Path,
) -> None:
    append(tmp_path, entry("create", 0, BEGINNING))
    append(tmp_path, entry("promote", 1))

    first, second = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert first["beginning"] == {
        "backbone": "d" * 64,
        "backbone_name": "tiny",
        "labels": ["red", "blue"],
        "policy": "closed",
    }
    assert "beginning" not in second


def test_a_history_is_read_anew_when_it_has_changed_and_is_gone_when_its_folder_is(tmp_path: Path) -> None:
    histories, folder = Histories(), tmp_path / "model"
    folder.mkdir()
    append(folder, entry("publish", 1))
    assert len(histories.of(folder)) == 1
    append(folder, entry("promote", 1))
    assert len(histories.of(folder)) == 2

    folder.rename(tmp_path / "elsewhere")

    assert histories.of(folder) == []


def test_an_event_of_a_newer_regraft_is_an_error_that_says_to_upgrade(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"event": "dream"}\n')

    with pytest.raises(OperatorError, match="says 'dream', of which this Regraft knows nothing: upgrade it"):
        Histories().of(tmp_path)


@given(st.lists(st.sampled_from(["promote 1", "promote 2", "rollback", "shadow 1", "create", "delete", "restore"])))
def test_what_comes_and_goes_moves_neither_champion_nor_shadow(words: list[str]) -> None:
    history = [
        entry(event, int(number or 0))  # type: ignore[arg-type]  # of the words above
        for event, _, number in (word.partition(" ") for word in words)
    ]
    without = [each for each in history if each.event not in ("create", "delete", "restore")]

    assert champions_of(history) == champions_of(without)
    assert shadow_of(history) == shadow_of(without)
    last = next((word for word in reversed(words) if word in ("delete", "restore")), "")
    assert (deletion_of(history) is not None) == (last == "delete")


def test_a_model_began_as_its_first_line_says() -> None:
    assert beginning_of([entry("create", 0, BEGINNING), entry("publish", 1)]) == BEGINNING
    assert beginning_of([entry("publish", 1)]) is None


def test_labels_of_a_beginning_are_in_their_one_form() -> None:
    assert Beginning("d" * 64, "tiny", ("Mo\u0308we",)).labels == ("M\u00f6we",)
