"""A whole probe against the least it could cost: decoding every picture and one pass of the backbone, on all cores.

Run it with ``python -m benchmarks.probe FOLDER``; the folder is one that ``regraft train`` takes.
"""

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regraft.image import decode_crop
from regraft.runtime import cpu_budget, open_session
from training.catalogue import DEFAULT_BACKBONE
from training.dataset import scan
from training.pretrained import ExportedBackbone, cache_folder, load_backbone
from training.settings import TrainSettings
from training.train import train


def least_s(backbone: ExportedBackbone, files: list[Path]) -> float:
    """Return the seconds that decoding and one pass take, a picture a thread, as many at once as there are CPUs."""
    session = open_session(backbone.model.SerializeToString(), provider="cpu", threads=1).session

    def run(path: Path) -> None:
        session.run(None, {"image": decode_crop(path.read_bytes(), backbone.spec)[None]})

    run(files[0])
    began = time.perf_counter()
    with ThreadPoolExecutor(cpu_budget()) as pool:
        list(pool.map(run, files))
    return time.perf_counter() - began


def main() -> None:
    """Print both, and the ratio."""
    folder = Path(sys.argv[1])
    backbone = load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())  # exported once, which is not measured
    files = [image.path for image in scan(folder).images]
    least = least_s(backbone, files)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["REGRAFT_CACHE"] = scratch  # nothing is embedded yet
        load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())
        began = time.perf_counter()
        result = train(TrainSettings(folder, store=Path(scratch) / "models"))
        probe = time.perf_counter() - began
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.stage_seconds.items())
    print(f"{len(files)} pictures, {DEFAULT_BACKBONE}, {cpu_budget()} CPUs")  # noqa: T201 - its output
    print(f"decode and one pass   {least:6.1f} s")  # noqa: T201 - likewise
    print(f"the whole probe       {probe:6.1f} s   {probe / least:.2f} x   ({stages})")  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
