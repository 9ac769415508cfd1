"""Stores and databases that an earlier commit made, opened by today's code."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

import pytest

from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from tests import REPOSITORY
from tests.live_server import LiveServer
from tests.tiny import picture
from training.head.features import load_features
from training.retrain.job import run_job

BEFORE_THE_WINGS: Final = "9aaafb5"
"""The commit before which all modules of a package lay side by side."""
MAKE: Final = """
import sys
from pathlib import Path
from regraft.examples import FOLDER, ExamplesStore
from regraft.labels import image_hash
from regraft.store import ModelStore
from tests.tiny import picture, publish_tiny
from training.retrain import run_job

store = ModelStore(Path(sys.argv[1]))
publish_tiny(store)
examples = ExamplesStore(store.root / FOLDER, sys.argv[2])
for number in range(40):
    examples.add("colours", picture("grey", number), "grey")
examples.relabel("colours", image_hash(picture("grey", 0)), "red", annotator="Ann")
run_job(store, examples, examples.jobs.create("colours", {}, "Ann").id)
for number in range(40, 80):
    examples.add("colours", picture("grey", number), "grey")
examples.jobs.create("colours", {"no_gate": True}, "Ann")
"""


@pytest.fixture(scope="module")
def earlier_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    command = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY), "archive", BEFORE_THE_WINGS]
    archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"git's history lacks {BEFORE_THE_WINGS}: {archived.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_what_was_stored_before_is_served_retrained_and_read(earlier_code: Path, tmp_path: Path, database: str) -> None:
    root = tmp_path / "models"
    made = [sys.executable, "-c", MAKE, str(root), database]
    subprocess.run(made, cwd=earlier_code, env={**os.environ, "PYTHONPATH": str(earlier_code)}, check=True)
    store = ModelStore(root)
    examples = ExamplesStore(root / EXAMPLES_FOLDER, database)

    assert store.champion("colours") == 2
    events = ["publish", "promote", "publish", "promote"]
    assert [entry.event for entry in store.history("colours")] == events
    assert artifact.read(store.folder("colours", 2) / MODEL_FILE).card.labels == ("red", "green", "blue", "grey")
    assert set(load_features(store.folder("colours", 2) / FEATURES_FILE).labels) == {"red", "green", "blue", "grey"}
    history = examples.labels.history("colours", image_hash(picture("grey", 0)))
    assert [each.label for each in history] == ["grey", "red"]
    waiting, done = examples.jobs.list("colours")
    assert (done.state, done.version) == (JobState.SUCCEEDED, 2)
    assert run_job(store, examples, waiting.id).state is JobState.SUCCEEDED
    examples.close()
    with LiveServer(store, database=database) as live:
        assert live.client.classify(picture("grey", 100)).predictions[0].label == "grey"
        assert live.client.get_model().champion == 3
