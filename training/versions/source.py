"""Source version of a run, ``--backbone store:NAME[:VERSION]``. No torch.

A probe takes the backbone out of its file. A fine-tuning goes on from the weights that the one which made it kept,
which lie beside that version or beside another with the same backbone.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from regraft.errors import InvalidRequestError, PreconditionError
from regraft.model import artifact
from regraft.model.artifact import Artifact
from regraft.model.card import KeptState, ModelCard, SourceVersion
from regraft.stores.models import MODEL_FILE, STATE_FILE, ModelStore
from training.backbones.cache import ExportedBackbone, backbone_of
from training.backbones.catalogue import STORE_PREFIX
from training.settings import TrainSettings

IMPORTED: Final = "imported "
"""How the weights of a version begin in its card that `regraft import` brought, see `training.importing.classifier`."""


@dataclass(frozen=True)
class Source:
    """A version to go on from."""

    root: Path
    name: str
    version: int

    @cached_property
    def artifact(self) -> Artifact:
        """The model file, read once."""
        return artifact.read(ModelStore(self.root).folder(self.name, self.version) / MODEL_FILE)

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.artifact.card

    @property
    def label(self) -> str:
        """The name for people: NAME:VERSION."""
        return f"{self.name}:{self.version}"

    @property
    def lineage(self) -> tuple[SourceVersion, ...]:
        """The version and those that it went on from, the nearest first.

        Of versions of one model with one backbone, which refreshes make, the newest stands for all.
        """
        backbone = self.card.backbone
        earlier = (each for each in backbone.sources if (each.name, each.digest) != (self.name, backbone.digest))
        return (SourceVersion(name=self.name, version=self.version, digest=backbone.digest), *earlier)

    def backbone(self) -> ExportedBackbone:
        """Return its backbone as it is, in its own precision."""
        backbone = self.card.backbone
        notes = [f"It goes on from the backbone of {self.label}, {backbone.precision}."]
        if backbone.precision == "int8":
            notes.append("That backbone is int8 and stays so; the version that it was quantised from has it in fp32.")
        return replace(backbone_of(self.artifact), notes=tuple(notes), sources=self.lineage)

    def state(self) -> Path:
        """Return the file of the weights to go on from, found whole.

        Raises:
            PreconditionError: none was kept, or it is gone or damaged; the text says what to do instead.
        """
        state = self.card.backbone.state
        for folder in self._folders() if state else ():
            if state and _matches(folder / STATE_FILE, state):
                return folder / STATE_FILE
        raise PreconditionError(f"--backbone: {STORE_PREFIX}{self.label} {self._lack(state)}: {self._way_out()}")

    def _folders(self) -> Iterator[Path]:
        """Yield the folders that may hold its state, nearest first."""
        store, own = ModelStore(self.root), dict.fromkeys([self.name, *(each.name for each in self.lineage)])
        for name in own:
            for version in reversed(store.versions(name)):
                yield store.folder(name, version)

    def _lack(self, state: KeptState | None) -> str:
        if state:
            return f"was trained in torch, but the weights that it left ({STATE_FILE}) are gone or damaged"
        return "keeps no weights that torch could go on from"

    def _way_out(self) -> str:
        backbone = self.card.backbone
        again = (
            ""
            if backbone.weights.startswith(IMPORTED)
            else f", or fine-tune from the original ones, --backbone {backbone.name}"
        )
        return f"train a head on its backbone, --strategy probe{again}"


def source_of(settings: TrainSettings) -> Source | None:
    """Return a run's source version, None for a network.

    Raises:
        InvalidRequestError: what is given is no name and version.
        NotFoundError: there is no such version.
        PreconditionError: no version is given, and the model has no champion.
    """
    if not settings.backbone.startswith(STORE_PREFIX):
        return None
    return Source(settings.store, *ModelStore(settings.store).find(settings.backbone.removeprefix(STORE_PREFIX)))


def settle_source(settings: TrainSettings) -> TrainSettings:
    """Check a run's source version, and name it in the settings.

    Raises:
        InvalidRequestError: a flag that makes no sense with it.
        ArtifactError: the version is damaged, or an older Regraft's.
        PreconditionError: it shall be fine-tuned, and keeps no weights to go on from.
    """
    source = source_of(settings)
    if source is None:
        return settings
    side = source.card.image.crop_px
    if settings.image_px not in (None, side):
        raise InvalidRequestError(
            f"--image-px: {settings.image_px}; the backbone of {source.label} takes pictures of {side} px alone"
        )
    if settings.strategy != "probe":
        source.state()
    return replace(settings, backbone=f"{STORE_PREFIX}{source.label}", image_px=None)


def _matches(path: Path, state: KeptState) -> bool:
    """Compare a file with the size and digest in a card."""
    if not path.is_file() or path.stat().st_size != state.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == state.sha256
