"""A user's repository with packages named as Regraft's own, ``serving`` and ``training``."""

import subprocess
from pathlib import Path

import pytest

from regraft.stores.models import ModelStore
from regraft.v1 import retraining_pb2
from tests.e2e.conftest import ServerProcess
from tests.tiny import picture

pytestmark = pytest.mark.usefixtures("among_foreign_packages")


def test_a_server_that_is_started_there_serves_and_retrains(installed: Path, store: ModelStore) -> None:
    with ServerProcess(store.root, regraft=[str(installed)]) as server, server.client() as client:
        assert client.classify(picture("red")).predictions[0].label == "red"
        list(client.add_examples((picture("grey", number), "grey") for number in range(40)))
        *_, job = client.watch_job(client.retrain().id)
        assert server.stop() == 0

    assert job.state == retraining_pb2.RetrainJob.STATE_SUCCEEDED, job.message


def test_commands_that_train_are_those_of_regraft(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run([installed, "train", tmp_path / "none"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}")
