"""How fast a server embeds what is labelled, against what ONNX Runtime does with the same network and nothing else.

    python -m benchmarks.labelling STORE NAME FOLDER [COUNT]

Pictures of the folder go in over AddExamples, each made different by a few bytes behind its end; the clock runs from
the first to the last embedding in the database. Server and client share all CPUs; what the client uses of them is taken
off the raw rate in a second ratio, since it mostly runs elsewhere. The server's work beside the network is all counted:
it receives, decodes, hashes, and writes picture, label and embedding so that they survive a power cut.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.server_process import ServerProcess
from benchmarks.steady_store import copy_model, label_copies
from regraft import artifact
from regraft.files import cache_folder
from regraft.runtime import cpu_budget
from regraft.store import MODEL_FILE, ModelStore
from serving.engine import measure_model

_ROUNDS: Final = 3


def main(store: str, name: str, data: str, count: str = "1500") -> None:
    """Print both rates, three times in turn, and their ratios."""
    models = ModelStore(Path(store))
    path = models.folder(*models.find(name)) / MODEL_FILE
    ratios = []
    for number in range(_ROUNDS):
        before = raw_rate(path)
        labelled, client = labelling_rate(Path(store), name, Path(data), int(count), number)
        raw = (before + raw_rate(path)) / 2
        ratios.append((labelled / raw, labelled / (raw * (1 - client / cpu_budget()))))
        sys.stdout.write(
            f"raw {raw:.1f}/s  labelled and embedded {labelled:.1f}/s  "
            "ratio {:.2f}, without the client {:.2f}\n".format(*ratios[-1])
        )
    medians = np.median(ratios, axis=0)
    sys.stdout.write("median ratio {:.2f}, without the client {:.2f}, on {} CPUs\n".format(*medians, cpu_budget()))


def raw_rate(path: Path) -> float:
    """Return pictures a second of the best plan: decoded already, all lanes busy, nothing else running."""
    _, points = measure_model(path, artifact.read(path).card, "cpu", None, fresh=True)
    return max(point.pictures_per_s for point in points)


def labelling_rate(store: Path, name: str, data: Path, count: int, number: int) -> tuple[float, float]:
    """Return pictures a second from the first AddExamples to the last embedding in a server's database.

    And how many CPUs this process, the client, used meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        target = Path(folder)
        copy_model(store, name, target)
        with ServerProcess(target, range(cpu_budget())) as server:
            label_copies(server.target, target, name, data, 50, first=1_000_000)  # warm
            began_s, used_s = time.perf_counter(), time.process_time()
            label_copies(server.target, target, name, data, count, first=number * count)
            seconds = time.perf_counter() - began_s
            return count / seconds, (time.process_time() - used_s) / seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
