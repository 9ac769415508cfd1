"""Export of a version to other formats, proven on validation images.

Over the budget nothing is written. An int8 backbone is then tried again with its worst layers in float.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from regraft.errors import DatasetError, InvalidRequestError, PreconditionError
from regraft.files import storage_errors
from regraft.machine import cpu_budget
from regraft.model import artifact
from regraft.progress import Progress, silent
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from training.data.crops import readable_crops
from training.data.find_images import find_images
from training.export.budget import Source, write_within_budget
from training.export.formats.catalogue import Format, require_package
from training.export.formats.runners import crop_runner
from training.export.readme import readme
from training.export.result import Export
from training.export.validation import ValidatedFile, Validation
from training.head.features import load_features
from training.quantisation.quantise import CALIBRATION_CROPS, Cpu, this_cpu

MAX_DROP: Final = 1.3
"""Percentage points: what int8 costs EfficientNet-Lite0 to 4 at most, by their authors' own table."""
_NOTES: Final[dict[Format, str]] = {
    "ort": "it is made for ARM: the layout that x86 calculates fastest in is left out, and there onnx is faster",
    "mobile": (
        "milliseconds are from the bytes of a picture, for both; it decodes JPEGs without smoothing their colours "
        "and pays no heed to EXIF orientation, so turn pictures upright before you ask"
    ),
}


def export_version(
    store: ModelStore,
    wanted: str,
    to: str,
    out: Path,
    *,
    data: Path | None,
    examples: str,
    cpu: str | None = None,
    max_drop: float = MAX_DROP,
    progress: Progress = silent,
) -> Export:
    """Write a version in another format into a new folder.

    Args:
        store: the model store.
        wanted: ``NAME:VERSION``, or ``NAME`` for its champion.
        to: a `training.export.formats.catalogue.Format`.
        out: the folder; must not be there yet, and appears only when everything is in it.
        data: a folder with the pictures that the version was trained and validated on.
        examples: the folder or URL of the examples store, for pictures that came over gRPC.
        cpu: a `training.quantisation.quantise.Cpu` that int8 is for; None is this machine.
        max_drop: percentage points of accuracy that may be lost.
        progress: told the stages ``scan``, ``validate``, ``quantise``, ``layers`` and ``measure``.

    Raises:
        InvalidRequestError: a flag makes no sense, or the folder exists.
        NotFoundError: no such version.
        PreconditionError: there is no champion, there are no validation images, or the version is int8 already.
        DatasetError: a picture is missing, or can no longer be read.
        MissingPackageError: the format needs a package that is not installed.
        ArtifactError: the model cannot be converted.
        TrainingError: the file would lose more than ``max_drop``.
        StorageError: the folder cannot be written.
    """
    form, target = _check(to, out, cpu, max_drop)
    require_package(form)
    source = _read(store, wanted, form, data, examples, progress)
    with storage_errors(f"cannot write {out}"), _new_folder(out) as folder:
        attempt = write_within_budget(source, form, folder, target, max_drop, progress)
        export = Export(
            source.name,
            source.version,
            form,
            out,
            out / attempt.model.relative_to(folder),
            target,
            attempt.proof,
            attempt.in_float,
            (*_remarks(form, target), *attempt.notes),
        )
        (folder / "README.md").write_text(readme(export, source.artifact.card), encoding="utf-8")
        (folder / "export.json").write_text(json.dumps(export.to_dict(), indent=1) + "\n", encoding="utf-8")
    return export


def _remarks(to: Format, cpu: Cpu | None) -> list[str]:
    remarks = [_NOTES[to]] if to in _NOTES else []
    if cpu is not None and cpu != this_cpu():
        remarks.append(
            f"it is for {cpu}, and this machine is {this_cpu()}: its answers were compared here, not its speed"
        )
    return remarks


def _check(to: str, out: Path, cpu: str | None, max_drop: float) -> tuple[Format, Cpu | None]:
    """Return format and CPU, or raise `InvalidRequestError`."""
    if not max_drop >= 0:
        raise InvalidRequestError(f"--max-drop {max_drop}: need percentage points, 0 or more")
    if out.exists():
        raise InvalidRequestError(f"--out {out}: is there already; name a new folder, nothing is overwritten")
    wanted: Format = _one_of(get_args(Format), to, "--to")
    if wanted != "int8":
        if cpu is not None:
            raise InvalidRequestError(f"--cpu {cpu}: only --to int8 depends on the CPU")
        return wanted, None
    return wanted, this_cpu() if cpu is None else _one_of(get_args(Cpu), cpu, "--cpu")


def _one_of(choices: Sequence[Any], asked: str, flag: str) -> Any:  # noqa: ANN401 - one of a Literal
    if asked not in choices:
        raise InvalidRequestError(f"{flag} {asked}: need one of {', '.join(choices)}")
    return asked


def _read(store: ModelStore, wanted: str, to: Format, data: Path | None, examples: str, progress: Progress) -> Source:
    name, version = store.find(wanted)
    path = store.folder(name, version) / MODEL_FILE
    model = artifact.read(path)
    if model.card.backbone.precision != "fp32" and to in {"fp16", "int8"}:
        raise PreconditionError(f"{name}:{version} is {model.card.backbone.precision} already: --to onnx keeps it so")
    features = load_features(path.parent / FEATURES_FILE)
    holdout = features.holdout()
    if not holdout.sha256:
        raise PreconditionError(
            f"{name}:{version} has no validation images, so nothing could be proven: label some with `regraft label`, "
            "and retrain"
        )
    calibration = features.train().sha256[:CALIBRATION_CROPS] if to in {"fp16", "int8"} else ()
    files = find_images((*holdout.sha256, *calibration), data, examples, progress)
    spec = model.card.image
    readable = {sha256 for sha256, _ in readable_crops(((sha256, files[sha256]) for sha256 in holdout.sha256), spec)}
    holdout = holdout.select(np.isin(holdout.sha256, list(readable)))
    if not holdout.sha256:
        raise DatasetError(f"{name}:{version}: none of its validation images can be read any more")
    validation = Validation([files[sha256] for sha256 in holdout.sha256], holdout.label_index, features.labels, spec)
    served = ValidatedFile.run_on(validation, crop_runner(path), path.stat().st_size / 1e6, cpu_budget(), progress)
    return Source(name, version, model, validation, served, [(sha256, files[sha256]) for sha256 in calibration])


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``out`` on success."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        scratch.chmod(0o755)
        yield scratch
        scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
