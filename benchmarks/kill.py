"""kill -9 at random instants of a retrain: the server, its child, or both.

Run it with ``python -m benchmarks.kill STORE NAME FOLDER [ROUNDS]``; the folder has photos of its classes. After
every kill both stores are looked through: every acknowledged example, every version whole. At the end every job has to
have SUCCEEDED, at its second attempt where the first was killed.
"""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.retrain import at_other_sizes, tell
from benchmarks.server_process import ServerProcess
from benchmarks.steady_store import copy_model
from regraft.client.client import Client
from regraft.client.message_values import word_of
from regraft.model import artifact
from regraft.stores.examples import open_examples
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from regraft.v1 import retraining_pb2 as pb
from training.head.features import load_features

ROUNDS = 50
MODES = ("server", "child", "both")
_EACH = 5


@dataclass
class Ordeal:
    """What was promised, and when was struck."""

    store: ModelStore
    name: str
    data: Path
    acknowledged: set[str] = field(default_factory=set)
    struck: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    def label(self, client: Client) -> None:
        """Send some examples."""
        pictures = at_other_sizes(self.data, _EACH, self.sent)
        self.sent += _EACH
        answers = client.add_examples(pictures, name=self.name)
        self.acknowledged |= {a.sha256 for a in answers if a.outcome == pb.AddExamplesResponse.OUTCOME_ACCEPTED}

    def check(self) -> None:
        """Look through both stores."""
        champion = self.store.champion(self.name)
        assert champion in self.store.versions(self.name)
        for version in self.store.versions(self.name):
            folder = self.store.folder(self.name, version)
            artifact.read(folder / MODEL_FILE)
            load_features(folder / FEATURES_FILE)
        examples = open_examples(self.store.root)
        kept = {example.sha256 for example in examples.labels.in_force(self.name)}
        examples.close()
        assert self.acknowledged <= kept, "an acknowledged example is lost"


def strike(ordeal: Ordeal, mode: str, after_s: float) -> None:
    """Start a retrain and kill after some seconds; then look through the stores."""
    cpus = os.sched_getaffinity(0)
    with ServerProcess(ordeal.store.root, cpus) as server, Client(server.target) as client:
        for job in client.list_jobs():  # a child that outlived its server, or a second one, may be at work yet
            for _ in client.watch_job(job.id):
                pass
        ordeal.label(client)
        job = client.retrain(name=ordeal.name, gate="off")
        time.sleep(after_s)
        now = client.get_job(job.id)
        state = word_of(pb.RetrainJob.State, now.state)
        ordeal.struck[now.phase if state == "RUNNING" else state] += 1
        if mode != "child":
            server.kill()
        if mode != "server":
            for process in processes_of(job.id):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        if mode == "child":
            *_, end = client.watch_job(job.id)
            assert end.state == pb.RetrainJob.STATE_SUCCEEDED, end.message
    ordeal.check()


def processes_of(job_id: str) -> Iterator[int]:
    """Yield the processes that run a job: one, or none."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and job_id.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                yield int(entry.name)


def undisturbed_s(ordeal: Ordeal) -> float:
    """Return how long a retrain takes that nobody kills; the second one, since the first has files to read."""
    with ServerProcess(ordeal.store.root, os.sched_getaffinity(0)) as server, Client(server.target) as client:
        for _ in range(2):
            ordeal.label(client)
            began_s = time.monotonic()
            *_, end = client.watch_job(client.retrain(name=ordeal.name, gate="off").id)
            assert end.state == pb.RetrainJob.STATE_SUCCEEDED, end.message
        return time.monotonic() - began_s


def main() -> None:
    """Strike, and print how all jobs ended."""
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else ROUNDS
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        store = ModelStore(Path(scratch) / "models")
        copy_model(Path(sys.argv[1]), sys.argv[2], store.root)
        ordeal = Ordeal(store, sys.argv[2], Path(sys.argv[3]))
        whole_s = undisturbed_s(ordeal)
        for round_ in range(rounds):
            strike(ordeal, MODES[round_ % len(MODES)], float(random.uniform(0, whole_s)))
        with ServerProcess(store.root, os.sched_getaffinity(0)) as server, Client(server.target) as client:
            ends: Counter[str] = Counter()
            for job in client.list_jobs():
                *_, end = client.watch_job(job.id)
                assert end.state == pb.RetrainJob.STATE_SUCCEEDED, end.message
                ends["second attempt" if "second attempt" in end.message else "first attempt"] += 1
            model = client.get_model(ordeal.name)
        ordeal.check()
        assert model.served_version == model.champion
        tell(f"{rounds} kills within {whole_s:.1f} s of Retrain, in phase or after the end: {dict(ordeal.struck)}")
        tell(f"{len(ordeal.acknowledged)} acknowledged examples, all there; {len(model.versions)} versions, all whole")
        tell(f"jobs, all SUCCEEDED: {dict(ends)}")


if __name__ == "__main__":
    main()
