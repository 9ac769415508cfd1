"""Backbones in the model store, for models to begin with.

They are made, or left by a run. No torch but to export one.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from regraft.datasets.folders import list_folder
from regraft.errors import InvalidRequestError, RegraftError, first_line
from regraft.files import text_of
from regraft.progress import Progress, silent
from regraft.stores.backbones import DEFAULT_BACKBONE, BackboneStore, StoredBackbone, describe
from regraft.stores.models import ModelStore
from training.backbones.cache import ExportedBackbone, load_backbone
from training.backbones.catalogue import STORE_PREFIX
from training.quantisation.precision import calibration_crops, quantised
from training.settings import TrainSettings
from training.versions.source import Source

log = logging.getLogger("regraft.train")

_PRETRAINED: Final = "probe"
"""The strategy that leaves a backbone as it was."""
_INT8: Final = "-int8"


@dataclass(frozen=True)
class BackboneSettings:
    """Settings of a backbone that is made for the store.

    Attributes:
        name: of the network; or ``store:NAME[:VERSION]``, a version's own.
        weights: see `training.backbones.build.build_backbone`.
        precision: ``int8`` wants pictures to calibrate with.
        data: a folder of them, with or without labels.
        image_px: side of the crop; the network's own if None.
    """

    name: str = DEFAULT_BACKBONE
    weights: str = "default"
    precision: Literal["fp32", "int8"] = "fp32"
    data: Path | None = None
    image_px: int | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions, by the name of the flag."""
        if self.precision == "int8" and self.data is None:
            raise InvalidRequestError("--precision int8: by which pictures are its ranges measured? Add --data FOLDER")
        if self.name.startswith(STORE_PREFIX) and (self.weights != "default" or self.image_px is not None):
            raise InvalidRequestError(f"--weights, --image-px: the backbone of {self.name} is as it is: drop them")


def make_backbone(store: Path, settings: BackboneSettings, cache: Path, progress: Progress = silent) -> StoredBackbone:
    """Make a backbone, and put it into a model store.

    Args:
        store: the model store.
        settings: which one.
        cache: of exported backbones.
        progress: told the stages ``export`` and ``quantise``.

    Raises:
        InvalidRequestError: no such network, weights or pictures.
        NotFoundError: no such version.
        MissingPackageError: torch is needed and not installed.
        ArtifactError: the export failed its check against torch, or it cannot be quantised.
        StorageError: the store could not be written.
    """
    if settings.name.startswith(STORE_PREFIX):
        source = Source(store, *ModelStore(store).find(settings.name.removeprefix(STORE_PREFIX)))
        backbone, name = source.backbone(), source.label
    else:
        backbone = load_backbone(settings.name, settings.weights, 0, cache, progress, image_px=settings.image_px)
        name = _network_name(settings.name, settings.weights, settings.image_px)
    if settings.precision == "int8" and settings.data is not None and backbone.precision != "int8":
        backbone = quantised(backbone, calibration_crops(_pictures(settings.data), backbone.spec), progress)
        name = f"{name}{_INT8}"
    return _add(BackboneStore(store), backbone, name)


def keep_backbone(
    backbone: ExportedBackbone,
    settings: TrainSettings,
    strategy: str,
    version: str,
    cache: Path,
    note: Callable[[str], None],
) -> None:
    """Leave a version's backbone in its store, for further models.

    One that learned from pictures is called after the version, and a network after itself, with the image rule that
    is its own, whatever the run's was. Where the store refuses, the version stays all the same, and a note says so.

    Args:
        backbone: of the version.
        settings: of the run that made it.
        strategy: by which it was made in the end.
        version: the version, NAME:VERSION.
        cache: of exported backbones.
        note: told of a failure.
    """
    store = BackboneStore(settings.store)
    try:
        if store.get(backbone.digest) is not None:
            return
        if strategy == _PRETRAINED and not settings.backbone.startswith(STORE_PREFIX):
            backbone, name = _as_network(backbone, settings, cache)
        else:
            own = next(
                (f"{each.name}:{each.version}" for each in backbone.sources if each.digest == backbone.digest), ""
            )
            name = own or version
        _add(store, backbone, name)
    except RegraftError as error:
        log.warning("the backbone of %s is not kept for further models: %s", version, first_line(error))
        note(f"Its backbone is not kept for further models: {first_line(error)}.")


def _as_network(backbone: ExportedBackbone, settings: TrainSettings, cache: Path) -> tuple[ExportedBackbone, str]:
    """Return a network's backbone with its own image rule, and its name."""
    network, weights, image_px = settings.backbone, settings.weights, settings.image_px
    if settings.resize:
        spec = load_backbone(network, weights, settings.seed, cache, image_px=image_px).spec
        backbone = replace(backbone, spec=spec)
    name = _network_name(network, weights, image_px)
    return backbone, f"{name}{_INT8}" if backbone.precision == "int8" else name


def _network_name(network: str, weights: str, image_px: int | None) -> str:
    told = {"default": "", "none": "random"}.get(weights, Path(weights).stem)
    return "-".join(part for part in (network, told, f"{image_px}px" if image_px else "") if part)


def _add(store: BackboneStore, backbone: ExportedBackbone, name: str) -> StoredBackbone:
    return store.add(backbone.model, describe(backbone.model, name, backbone.card, backbone.spec, backbone.published))


def _pictures(folder: Path) -> list[tuple[str, Path]]:
    """Return the pictures of a folder, in an arbitrary fixed order."""
    if not folder.is_dir():
        raise InvalidRequestError(f"--data: {text_of(folder)!r} is no folder")
    files = list_folder(folder, deep=True).files
    return sorted((hashlib.sha256(text_of(file.relative_to(folder)).encode()).hexdigest(), file) for file in files)
