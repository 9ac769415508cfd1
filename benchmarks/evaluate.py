"""Times ``regraft evaluate`` against decoding 1,000 pictures and one pass.

Run it with ``python -m benchmarks.evaluate FOLDER``; the folder is one that ``regraft train`` takes. A probe is trained
on it. Where it has fewer pictures, they come again under other names, with a comment in them that makes each another.
Seconds of the clock, and of all CPUs together, which a busy machine changes less.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from regraft.files import cache_folder
from regraft.image.decode import decode_crop
from regraft.machine import cpu_budget
from regraft.model.artifact import read
from regraft.model.session import open_session
from regraft.read_ahead import map_ahead
from regraft.safe_path import module_command
from regraft.stores.models import MODEL_FILE, ModelStore
from training.data.dataset import scan
from training.settings import TrainSettings
from training.train import train

PICTURES = 1000
ROUNDS = 3
_COMMENT = b"\xff\xfe"


def copied(folder: Path, to: Path) -> list[Path]:
    """Write `PICTURES` JPEGs, a folder for each class, and return them."""
    files = []
    for number, image in enumerate(islice(cycle(scan(folder).images), PICTURES)):
        file = to / image.label / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        data, note = image.path.read_bytes(), str(number).encode()
        file.write_bytes(data[:2] + _COMMENT + (len(note) + 2).to_bytes(2, "big") + note + data[2:])
        files.append(file)
    return files


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that work takes, and those of all CPUs."""
    began_s, busy_s = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - began_s, sum(os.times()[:4]) - busy_s


def main() -> None:
    """Print the best of some rounds of each, taken in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "models"
        train(TrainSettings(Path(sys.argv[1]), "bench", store, tensorboard=False), cache=cache_folder())
        data = Path(scratch) / "pictures"
        files = copied(Path(sys.argv[1]), data)
        model = ModelStore(store).folder("bench", 1) / MODEL_FILE
        spec = read(model).card.image
        session = open_session(model, provider="cpu", threads=1).session
        crops = list(map_ahead(lambda file: decode_crop(file.read_bytes(), spec), files))
        # An installed program has its byte code; here the first round makes it, whatever this environment says.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(scratch) / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [*module_command("regraft.cli"), "evaluate", "bench", str(data), "--store", str(store), "--json"]

        def decode() -> None:
            with ThreadPoolExecutor(cpu_budget()) as pool:
                list(pool.map(lambda file: decode_crop(file.read_bytes(), spec)[0, 0], files))

        def one_pass() -> None:
            with ThreadPoolExecutor(cpu_budget()) as pool:
                list(pool.map(lambda crop: session.run(None, {"image": crop[None]}), crops))

        def decode_and_run(file: Path) -> None:
            session.run(None, {"image": decode_crop(file.read_bytes(), spec)[None]})

        def both() -> None:
            with ThreadPoolExecutor(cpu_budget()) as pool:
                list(pool.map(decode_and_run, files))

        def evaluate() -> None:
            subprocess.run(command, env=environment, check=True, capture_output=True)

        works = {
            "decoding": decode,
            "one pass": one_pass,
            "the two at once": both,
            "the whole command": evaluate,
        }
        rounds = [[seconds(work) for work in works.values()] for _ in range(ROUNDS)]
    columns = zip(*rounds, strict=True)
    best = {
        name: [min(each) for each in zip(*column, strict=True)] for name, column in zip(works, columns, strict=True)
    }
    best["beyond the two"] = [
        whole - least for whole, least in zip(best["the whole command"], best["the two at once"], strict=True)
    ]
    print(f"{len(files)} pictures, {cpu_budget()} CPUs, best of {ROUNDS} rounds")  # noqa: T201 - its output
    for name, (clock_s, busy_s) in best.items():
        print(f"{name:18} {clock_s:6.2f} s   of all CPUs {busy_s:6.2f} s")  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
