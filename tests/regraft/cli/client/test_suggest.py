import csv
from pathlib import Path

from tests.live_server import LiveServer
from tests.regraft.cli.client.commands import run
from tests.tiny import picture
from tests.waiting import wait_until


def test_suggestions_can_be_saved_corrected_and_labelled(live: LiveServer, tmp_path: Path) -> None:
    for number in range(4):
        live.client.classify(picture("grey", number))
    wait_until(lambda: live.metric("regraft_kept_requests_total", outcome="kept") == 4)

    found = run(live, "suggest", "--save", str(tmp_path / "todo"))
    with (tmp_path / "todo/suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (counts,) = run(live, "label", str(tmp_path / "todo/suggestions.csv"))

    assert [row["request_id"] for row in rows] == [entry["request_id"] for entry in found]
    assert [row["source"] for row in rows] == [f"suggest:{entry['reason'].lower()}" for entry in found]
    assert {row["source"] for row in rows} >= {"suggest:random"}
    assert all((tmp_path / "todo" / row["file"]).read_bytes() for row in rows)
    assert counts["accepted"] == len(found) > 0
