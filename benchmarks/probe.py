"""A whole probe against the least it could cost: decoding every picture and one pass of the backbone, on all cores.

Run it with ``python -m benchmarks.probe FOLDER``; the folder is one that ``regraft train`` takes.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regraft.files import cache_folder
from regraft.image.decode import decode_crop
from regraft.machine import cpu_budget
from regraft.model.session import open_session
from regraft.stores.backbones import DEFAULT_BACKBONE
from training.backbones.cache import ExportedBackbone, load_backbone
from training.data.dataset import scan
from training.settings import TrainSettings
from training.train import train

ROUNDS = 3


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


def probe_s(backbone: str, folder: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds of a whole probe with nothing embedded yet, and those of its stages."""
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        load_backbone(backbone, "default", 0, cache)  # exported once, which is not measured
        began = time.perf_counter()
        result = train(TrainSettings(folder, store=Path(scratch) / "models", tensorboard=False), cache=cache)
        return time.perf_counter() - began, result.stage_seconds


def main() -> None:
    """Print the best of some rounds of both, taken in turn, and the ratio."""
    folder = Path(sys.argv[1])
    backbone = load_backbone(DEFAULT_BACKBONE, "default", 0, cache_folder())
    files = [image.path for image in scan(folder).images]
    rounds = [(least_s(backbone, files), probe_s(DEFAULT_BACKBONE, folder)) for _ in range(ROUNDS)]
    least = min(least for least, _ in rounds)
    probe, parts = min((probe for _, probe in rounds), key=lambda probe: probe[0])
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in parts.items())
    print(f"{len(files)} pictures, {DEFAULT_BACKBONE}, {cpu_budget()} CPUs, best of {ROUNDS} rounds")  # noqa: T201 - its output
    print(f"decode and one pass   {least:6.1f} s")  # noqa: T201 - likewise
    print(f"the whole probe       {probe:6.1f} s   {probe / least:.2f} x   ({stages})")  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
