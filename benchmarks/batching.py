"""What a batch costs for each picture on this CPU, one thread: why the server runs pictures one by one there.

Run it with ``python -m benchmarks.batching``.
"""

import os
import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from regraft.files import cache_folder
from regraft.runtime import open_session
from training.catalogue import DEFAULT_BACKBONE
from training.pretrained import load_backbone

SIZES = (1, 2, 4, 8, 16)
RUNS = 12


def main() -> None:
    """Print the table."""
    backbone = load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())
    session = open_session(backbone.model.SerializeToString(), provider="cpu", threads=1).session
    side = backbone.spec.crop_px
    table = Table("batch", "ms a picture", "against batch 1", title=f"{backbone.name}, 1 of {os.cpu_count()} CPUs")
    single_ms = 0.0
    for size in SIZES:
        crops = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        session.run(None, {"image": crops})
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            session.run(None, {"image": crops})
            times.append((time.perf_counter() - began) / size)
        each_ms = 1000 * statistics.median(times)
        single_ms = single_ms or each_ms
        table.add_row(str(size), f"{each_ms:.2f}", f"{each_ms / single_ms:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
