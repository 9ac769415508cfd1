"""A client in TypeScript, made from the .proto files alone.

It plays the story against a real server.
"""

import json
import subprocess
import time
from pathlib import Path

import google.rpc

from regraft.stores.models import ModelStore
from tests import REPOSITORY
from tests.e2e.test_export_consumers import CONSUMERS, needs, needs_files
from tests.live_server import LiveServer
from tests.tiny import picture

STORY = CONSUMERS / "built/story.js"


def test_a_client_in_typescript_lists_classifies_labels_retrains_moves_the_champion_and_reads_errors(
    store: ModelStore, tmp_path: Path
) -> None:
    node = needs("node")
    needs_files(STORY)
    (tmp_path / "grey").mkdir()
    (tmp_path / "red.png").write_bytes(picture("red"))
    for number in range(30):
        (tmp_path / "grey" / f"{number}.png").write_bytes(picture("grey", number))
    googles = Path(next(iter(google.rpc.__path__))).parents[1]

    with LiveServer(store) as live:
        command: list[str | Path] = [node, STORY, live.target, REPOSITORY / "proto", googles, tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert live.client.get_model().champion == 2

    told = json.loads(done.stdout)
    assert (told["names"], told["alone"], told["batch"]) == (["colours"], "red", ["red", "INVALID_IMAGE"])
    assert told["labelled"] == ["OUTCOME_ACCEPTED"] * 30 + ["OUTCOME_DUPLICATE"]
    assert told["states"][-1] == "STATE_SUCCEEDED"
    assert abs(told["finished_at"] - time.time()) < 300
    assert (told["promoted"], told["back"]) == (["promote", "1"], ["rollback", "2"])
    description = "5 is no share; need 0 to 1, where 0.05 is 5 percentage points"
    violation = {"field": "limits.max_drop", "description": description, "reason": "", "localized_message": None}
    assert told["refused"] == {
        "code": 3,
        "text": f"limits.max_drop: {description}",
        "details": {
            "ErrorInfo": {"reason": "INVALID_REQUEST", "domain": "regraft", "metadata": {"model": "colours"}},
            "BadRequest": {"field_violations": [violation]},
        },
    }
