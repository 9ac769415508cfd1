"""How fast a server embeds what is labelled, against what ONNX Runtime does with the same network and nothing else.

    python -m benchmarks.labelling STORE NAME FOLDER [COUNT]

Pictures of the folder go in over AddExamples, each made different by a few bytes behind its end; the clock runs from
the first to the last embedding in the database. Short blocks by turns with the raw rate, since a machine that others
share changes its speed within a minute. Server and client share all CPUs; what the client uses of them is taken off the
raw rate in a second ratio, since it mostly runs elsewhere. The server's work beside the network is all counted: it
receives, decodes, hashes, and writes picture, label and embedding so that they survive a power cut.

Files that somebody deleted within the last five minutes, such as those of an earlier run, spoil it on ext4, which looks
through all of their inodes for each new file: let it rest before, or keep ``REGRAFT_CACHE`` on another file system.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.in_process import planned, rate
from benchmarks.server_process import ServerProcess
from benchmarks.steady_store import copy_model, labeller
from regraft.files import cache_folder
from regraft.machine import cpu_budget
from regraft.model import artifact
from regraft.model.artifact import IMAGE
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.gpu import OUTPUTS

_ROUNDS: Final = 9


def main(store: str, name: str, data: str, count: str = "500") -> None:
    """Print both rates, block after block, and the medians of their ratios."""
    ratios = []
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        target = Path(folder)
        copy_model(Path(store), name, target)
        raw = raw_rate(target, name)
        with (
            ServerProcess(target, range(cpu_budget())) as server,
            labeller(server.target, target, name, Path(data)) as label,
        ):
            label(50, 1_000_000)  # warm
            before = raw()
            for number in range(_ROUNDS):
                labelled, client = labelling_rate(label, int(count), number)
                after = raw()
                most, before = (before + after) / 2, after
                ratios.append((labelled / most, labelled / (most * (1 - client / cpu_budget()))))
                sys.stdout.write(
                    f"raw {most:.1f}/s  labelled and embedded {labelled:.1f}/s  "
                    "ratio {:.2f}, without the client {:.2f}\n".format(*ratios[-1])
                )
    medians = np.median(ratios, axis=0)
    sys.stdout.write("median ratio {:.2f}, without the client {:.2f}, on {} CPUs\n".format(*medians, cpu_budget()))


def raw_rate(store: Path, name: str) -> Callable[[], float]:
    """Return what measures pictures a second of the plan's lanes: decoded already, nothing else running."""
    models = ModelStore(store)
    path = models.folder(*models.find(name)) / MODEL_FILE
    card = artifact.read(path).card
    plan, session = planned(path, card)
    shape = (plan.max_batch, card.image.crop_px, card.image.crop_px, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return lambda: plan.max_batch * rate(lambda: session.run(list(OUTPUTS), {IMAGE: crops}), plan.lanes)


def labelling_rate(label: Callable[[int, int], None], count: int, number: int) -> tuple[float, float]:
    """Return pictures a second from the first AddExamples to the last embedding in a server's database.

    And how many CPUs this process, the client, used meanwhile.
    """
    began_s, used_s = time.perf_counter(), time.process_time()
    label(count, number * count)
    seconds = time.perf_counter() - began_s
    return count / seconds, (time.process_time() - used_s) / seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
