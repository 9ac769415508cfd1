import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.stores.models import ModelStore
from tests.e2e.conftest import ServerProcess
from tests.tiny import picture
from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "regraft.cli", "bench"]
SHORT = ["--duration", "0.3", "--warm-up", "0"]


@pytest.fixture
def server(store: ModelStore) -> Iterator[ServerProcess]:
    """A server with one tiny champion."""
    with ServerProcess(store.root) as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for label in ("red", "blue"):
        (folder / f"{label}.png").write_bytes(picture(label))
    return folder


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_bench_prints_json_for_machines_and_tables_for_people(server: ServerProcess, pictures: Path) -> None:
    target = server.places["grpc"]

    machine = run(str(pictures), "--target", target, "--concurrency", "2", *SHORT, "--json")
    people = run(str(pictures), str(pictures / "red.png"), "--target", target, "--rate", "50", *SHORT)

    assert (machine.returncode, people.returncode) == (0, 0), machine.stderr + people.stderr
    result = json.loads(machine.stdout)
    assert result["requests"] == result["answered"] > 0
    assert (result["settings"]["images"], result["settings"]["concurrency"]) == (2, 2)
    assert "measure: 1 in" in machine.stderr
    assert "open loop, 50 requests/s, poisson, 3 pictures, 0.3 s" in people.stdout
    assert all(name in people.stdout for name in ("p99.9", "in the server: inference", "answered by v1: "))


def test_an_interrupted_bench_prints_what_was_measured_so_far(server: ServerProcess, pictures: Path) -> None:
    arguments = [str(pictures), "--target", server.places["grpc"], "--duration", "600", "--warm-up", "0", "--json"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: answered(server) > 100)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    result = json.loads(out)
    assert result["interrupted"]
    assert result["requests"] == result["answered"] + result["abandoned"]
    assert result["answered"] > 90
    assert b"Traceback" not in err


def test_a_bench_that_got_no_answer_fails_and_names_the_commonest_error(server: ServerProcess, pictures: Path) -> None:
    (pictures / "not-a-picture.txt").write_text("hello")
    target = server.places["grpc"]

    refused = run(str(pictures / "not-a-picture.txt"), "--target", target, *SHORT)
    assert server.stop() == 0
    alone = run(str(pictures), "--target", target, *SHORT)

    assert refused.returncode == 1
    assert "no request was answered" in refused.stderr
    assert "INVALID_ARGUMENT" in refused.stderr
    assert "INVALID_ARGUMENT" in refused.stdout
    assert alone.returncode == 1
    assert f"no server answers at {target}" in alone.stderr


def test_two_kinds_of_load_at_once_are_wrong_usage(pictures: Path) -> None:
    both = run(str(pictures), "--rate", "5", "--concurrency", "5")
    neither_file = run(str(pictures / "missing"))

    assert (both.returncode, neither_file.returncode) == (2, 2)
    assert "say one" in both.stderr
    assert "there is no such file or folder" in neither_file.stderr


def answered(server: ServerProcess) -> float:
    """Return how many requests the server has answered, as its metrics say."""
    with urllib.request.urlopen(server.places["metrics"], timeout=10) as page:  # noqa: S310 - our own server
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("regraft_requests_total{"))
