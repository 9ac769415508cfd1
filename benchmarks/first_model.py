"""A first model over gRPC alone, and the memory of fifty more.

``python -m benchmarks.first_model STORE_WITH_BACKBONE FOLDER``, some minutes; a line of figures each. With ``--memory``
only the second part.

The server has torch nowhere to be imported, and a store that holds one backbone and nothing else. 5 classes x 20
pictures of ``FOLDER`` go in, a first version comes out and answers: seconds of each step. Then 300 pictures more, and
a second retrain. ``regraft train`` learns from the very same 400, from a folder, as its user would; both are asked 400
pictures that neither has seen.

Then fifty models are made on the one backbone, each with a first version of 10 classes: what the server has in memory
after each, its sessions, and the slope.
"""

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.retrain import tell
from benchmarks.server_process import ServerProcess
from regraft.client.client import Client, RemoteError
from regraft.datasets.folders import list_folder, subfolders
from regraft.files import cache_folder
from regraft.image.encode import encode_png
from regraft.machine import cpu_budget
from regraft.stores.backbones import BACKBONES_FOLDER, BackboneStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.v1 import retraining_pb2
from training.settings import TrainSettings
from training.train import train

FIRST: Final = 20
MORE: Final = 60
TEST: Final = 80
"""Pictures of each of five classes."""
MODELS: Final = 50
CLASSES: Final = 10
NAME: Final = "flowers"

Pictures = Sequence[tuple[Path, str]]


@dataclass
class Steps:
    """Seconds of each step, printed as they come."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a block."""
        began_s = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began_s
        tell(f"{name:42} {self.seconds[name]:7.2f} s")


def main() -> None:
    """Do as the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="a model store whose backbones are taken")
    parser.add_argument("data", type=Path, help="a folder of five folders of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", action="store_true", help="only the memory of many models")
    parser.add_argument("--models", type=int, default=MODELS, help="how many they are")
    options = parser.parse_args()
    first, more, test = draw(options.data, options.seed)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        store = Path(scratch) / "models"
        shutil.copytree(options.store / BACKBONES_FOLDER, store / BACKBONES_FOLDER)
        with without_torch(Path(scratch)):
            if not options.memory:
                first_model(store, first, more, test)
            many_models(store, options.models)
        if not options.memory:
            trained = train_on_the_same(Path(scratch), [*first, *more], test)
            tell(f"regraft train on the same {len(first) + len(more)} pictures: {trained:.4f} of {len(test)} right")


def draw(data: Path, seed: int) -> tuple[Pictures, Pictures, Pictures]:
    """Draw pictures of each class to begin, to add, and to ask."""
    lot = random.Random(seed)  # noqa: S311 - no secret
    first: list[tuple[Path, str]] = []
    more: list[tuple[Path, str]] = []
    test: list[tuple[Path, str]] = []
    for folder in subfolders(data):
        files = sorted(list_folder(folder, deep=False).files)
        lot.shuffle(files)
        for part, count in ((first, FIRST), (more, MORE), (test, TEST)):
            part += [(files.pop(), folder.name) for _ in range(count)]
    return first, more, test


@contextmanager
def without_torch(scratch: Path) -> Iterator[None]:
    """Let no process started meanwhile import torch, as the base install."""
    blocked = scratch / "blocked"
    blocked.mkdir()
    for module in ("torch", "torchvision", "timm", "onnxscript"):
        (blocked / f"{module}.py").write_text(f"raise ImportError('{module} is not installed')\n")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(blocked), before]))
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


def first_model(store: Path, first: Pictures, more: Pictures, test: Pictures) -> None:
    """Make a model over gRPC, and print seconds and accuracy."""
    steps = Steps()
    with steps.step("server ready, with a backbone alone"):
        server = ServerProcess(store, range(cpu_budget()))
    with server, Client(server.target, timeout_s=120) as client:
        (backbone,) = {each.name for each in BackboneStore(store).list()}
        with steps.step(f"CreateModel on {backbone}"):
            client.create_model(NAME, backbone, who="benchmark")
        try:
            client.classify(test[0][0].read_bytes(), name=NAME)
        except RemoteError as error:
            tell(f"Classify before a version: {error.code}: {error}")
        with steps.step(f"AddExamples, {len(first)} pictures"):
            label(client, first)
        with steps.step("their embeddings"):
            until_embedded(store, len(first))
        with steps.step("Retrain to version 1"):
            verdict = retrain(client).verdict
        evidence = verdict.first
        tell(
            f"evidence: cross-validated {evidence.cross_validated_accuracy:.3f} ({evidence.low:.3f} to "
            f"{evidence.high:.3f}) on {evidence.images}, holdout {evidence.holdout_accuracy:.3f} on "
            f"{evidence.holdout_images}"
        )
        with steps.step("first answer"):
            client.classify(test[0][0].read_bytes(), name=NAME)
        tell(f"{'from CreateModel to the first answer':42} {sum([*steps.seconds.values()][1:]):7.2f} s")
        tell(f"version 1: {accuracy(client, test):.4f} of {len(test)} right")
        with steps.step(f"AddExamples, {len(more)} pictures more"):
            label(client, more)
        with steps.step("their embeddings"):
            until_embedded(store, len(first) + len(more))
        with steps.step("Retrain to version 2"):
            retrain(client)
        tell(f"version {client.get_model(NAME).champion}: {accuracy(client, test):.4f} of {len(test)} right")


def label(client: Client, pictures: Pictures, name: str = NAME) -> None:
    """Send labelled pictures."""
    for answer in client.add_examples(((file.read_bytes(), label) for file, label in pictures), name=name):
        if answer.outcome != retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED:
            raise SystemExit(f"a picture was not taken: {answer.reason}")


def until_embedded(store: Path, count: int) -> None:
    """Wait until so many pictures are embedded in a server's database."""
    while True:
        with closing(sqlite3.connect(store / EXAMPLES_FOLDER / "examples.sqlite")) as database:
            (there,) = database.execute("SELECT count(*) FROM embeddings").fetchone()
        if there >= count:
            return
        time.sleep(0.05)


def retrain(client: Client, name: str = NAME) -> retraining_pb2.RetrainJob:
    """Retrain, and see the job to its end."""
    *_, job = client.watch_job(client.retrain(name=name, gate="off").id)
    if job.state != retraining_pb2.RetrainJob.STATE_SUCCEEDED:
        raise SystemExit(job.message)
    return job


def accuracy(client: Client, pictures: Pictures, name: str = NAME) -> float:
    """Return the share of pictures that are answered rightly."""
    images = ((label, file.read_bytes()) for file, label in pictures)
    answers = client.classify_stream(images, name=name, top_k=1)
    return statistics.fmean(answer.response.predictions[0].label == answer.id for answer in answers)


def train_on_the_same(scratch: Path, pictures: Pictures, test: Pictures) -> float:
    """Train as a user with a folder would, and return the accuracy."""
    data = scratch / "data"
    for file, name in pictures:
        (data / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, data / name / file.name)
    store = scratch / "trained"
    train(TrainSettings(data, store=store, name=NAME, tensorboard=False), cache=cache_folder())
    with ServerProcess(store, range(cpu_budget())) as server, Client(server.target, timeout_s=120) as client:
        return accuracy(client, test)


def many_models(store: Path, count: int) -> None:
    """Make many models on one backbone, and print each one's memory."""
    pictures = [
        (encode_png(noise(number, colour)), f"class {colour}") for colour in range(CLASSES) for number in range(4)
    ]
    log = store / "server.log"
    with ServerProcess(store, range(cpu_budget()), log=log) as server, Client(server.target, timeout_s=120) as client:
        (backbone,) = {each.name for each in BackboneStore(store).list()}
        before = server.resident_mb()
        names = [f"model{number}" for number in range(count)]
        client.create_model(names[0], backbone, who="benchmark")  # opens the session
        with_session = server.resident_mb()
        for name in names[1:]:
            client.create_model(name, backbone, who="benchmark")
        each_mb = (server.resident_mb() - with_session) / (count - 1)
        tell(f"the session takes {with_session - before:.1f} MB, a further model without a version {each_mb:.3f} MB")
        taken: list[float] = []
        for name in names:
            for _ in client.add_examples(pictures, name=name):
                pass
            retrain(client, name)
            client.classify(pictures[0][0], name=name)
            taken.append(server.resident_mb())
        answering = [model for model in client.list_models() if model.served_version]
        later = np.arange(count)[count // 5 :]
        slope = float(np.polyfit(later, np.array(taken)[later], 1)[0])
        tell(f"{len(answering)} models of {CLASSES} classes answer; sessions opened since the start: {sessions(log)}")
        tell(f"the server: {before:.1f} MB before, {taken[0]:.1f} with one version, {taken[-1]:.1f} with {count}")
        tell(f"a further model of {CLASSES} classes: {slope:.3f} MB (slope over the last {len(later)})")


def noise(number: int, colour: int) -> npt.NDArray[np.uint8]:
    """Return a noisy picture of a class of its own."""
    lot = np.random.default_rng(100 * colour + number)
    base = np.random.default_rng(colour).integers(40, 216, 3)
    noisy = base + lot.integers(-40, 41, (64, 64, 3))
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def sessions(log: Path) -> int:
    """Count the sessions that a server's log says it opened."""
    return log.read_text().count("opened a session")


if __name__ == "__main__":
    main()
