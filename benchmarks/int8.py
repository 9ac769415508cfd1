"""A backbone in int8 against fp32: milliseconds an image on one thread, and what a head on it is worth.

Run it with ``python -m benchmarks.int8 FOLDER [BACKBONE [WEIGHTS]]``; the folder is one that ``regraft train`` takes.
"""

import sys
import tempfile
from pathlib import Path

from regraft.files import cache_folder
from regraft.image.decode import decode_crop
from regraft.progress import silent
from regraft.stores.backbones import DEFAULT_BACKBONE
from training.backbones.cache import ExportedBackbone, load_backbone
from training.data.dataset import scan
from training.data.samples import samples_of
from training.evaluation.latency import ms_per_crop
from training.quantisation.precision import calibration_crops, quantised
from training.settings import TrainSettings
from training.strategies.context import Context, SilentListener
from training.strategies.probe import probe_on
from training.versions.publish import measure_head

ROUNDS = 5


def line(backbone: ExportedBackbone, folder: Path, size: int, ms: float, fp32_ms: float) -> str:
    """Return what is said of one precision; the head is a probe's, fitted on this backbone's embeddings."""
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(TrainSettings(folder), cache_folder(), Path(scratch), SilentListener())
        made = probe_on(backbone, scan(folder), context)
    metrics = measure_head(made.fitted.head, made.features)
    said = f"{backbone.precision}  {ms:6.2f} ms  {fp32_ms / ms:.2f} x  {size / 1e6:6.1f} MB"
    said += f"  cross-validated {made.fitted.choices['cv_accuracy']:.4f}"
    return f"{said}  holdout {metrics.accuracy:.4f} of {metrics.images}" if metrics else said


def main() -> None:
    """Print the best of some rounds, taken in turn, and the accuracies."""
    folder, name, weights = Path(sys.argv[1]), *[*sys.argv[2:], *(DEFAULT_BACKBONE, "default")[len(sys.argv) - 2 :]]
    fp32 = load_backbone(name, weights, 0, cache_folder())
    dataset = scan(folder)
    training = [(sample.sha256, sample.path) for sample in samples_of(dataset, holdout=False)]
    int8 = quantised(fp32, calibration_crops(training, fp32.spec), silent)
    crops = [decode_crop(path.read_bytes(), fp32.spec) for _, path in training[:8]]
    graphs = [backbone.model.SerializeToString() for backbone in (fp32, int8)]
    times = [min(times) for times in zip(*(ms_per_crop(graphs, crops) for _ in range(ROUNDS)), strict=True)]
    print(f"{folder.name}, {name}, one thread, best of {ROUNDS} rounds")  # noqa: T201 - its output
    for backbone, graph, ms in zip((fp32, int8), graphs, times, strict=True):
        print(line(backbone, folder, len(graph), ms, times[0]))  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
