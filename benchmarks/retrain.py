"""From the call of Retrain to the new head serving, with thousands of new examples that are embedded already.

Run it with ``python -m benchmarks.retrain STORE NAME FOLDER [COUNT]``; the folder has photos of its classes. The
examples are these photos at other sizes, each a picture of its own. The server and its retrain have all CPUs.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.server_process import ServerProcess
from benchmarks.steady_store import copy_model, labelled, wait_until_embedded
from regraft.client.client import Client
from regraft.client.message_values import word_of
from regraft.image.encode import thumbnail
from regraft.v1 import retraining_pb2

COUNT = 3000
ROUNDS = 3
_SMALLEST_PX = 120
_STEP_PX = 24


def at_other_sizes(data: Path, count: int, first: int) -> Iterator[tuple[bytes, str]]:
    """Yield so many (picture, label) pairs; those from another ``first`` on are others."""
    files = labelled(data)
    for number in range(first, first + count):
        path, label = files[number % len(files)]
        yield thumbnail(path.read_bytes(), _SMALLEST_PX + _STEP_PX * (number // len(files))), label


def tell(text: str) -> None:
    """Print a line."""
    print(text, flush=True)  # noqa: T201 - its output


def main() -> None:
    """Label, wait until all is embedded, and take the time of a retrain; some rounds of it."""
    source, name, data = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else COUNT
    cpus = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "models"
        copy_model(source, name, store)
        with ServerProcess(store, cpus) as server, Client(server.target) as client:
            began_s = time.perf_counter()
            answers = list(client.add_examples(at_other_sizes(data, count, 0), name=name))
            kept = sum(answer.outcome == retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED for answer in answers)
            tell(f"{kept} examples kept in {time.perf_counter() - began_s:.1f} s, {len(cpus)} CPUs")
            wait_until_embedded(store, name)
            tell(f"and embedded after {time.perf_counter() - began_s:.1f} s")
            for round_ in range(ROUNDS):
                if round_:  # or there is nothing new
                    list(client.add_examples(at_other_sizes(data, 1, count + round_), name=name))
                    wait_until_embedded(store, name)
                _time_a_retrain(client, name)


def _time_a_retrain(client: Client, name: str) -> None:
    began_s = time.perf_counter()
    job = client.retrain(name=name, gate="off")
    phases: dict[str, float] = {}
    for job in client.watch_job(job.id):  # noqa: B020 - the last state is what is told
        phases.setdefault(job.phase or "start", time.perf_counter() - began_s)
    took_s = time.perf_counter() - began_s
    served = client.get_model(name).served_version
    state = word_of(retraining_pb2.RetrainJob.State, job.state)
    reached = ", ".join(f"{phase} {at_s:.1f}" for phase, at_s in phases.items())
    tell(f"from Retrain to version {served} serving: {took_s:.1f} s ({state}; phases began at: {reached})")


if __name__ == "__main__":
    main()
