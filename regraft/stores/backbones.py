"""Backbones on disk, which models begin with.

::

    <store>/.backbones/<digest>/   backbone.onnx, the graph up to the embedding, and backbone.json, what it is:
                                   immutable; appears by one rename

A version holds its whole network itself and needs none of these: a backbone is for the models that have no version
yet. The digest is that of the card of every version made of it (`regraft.model.artifact.backbone_digest`), so that
they share its embeddings and its session. Writers take a lock; readers never do.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Final

import onnx
from google.protobuf.message import DecodeError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from regraft.errors import ArtifactError, InvalidRequestError, NotFoundError, PreconditionError, first_line
from regraft.files import fsync_folder, locked, storage_errors, utc_now, write_durably
from regraft.image.spec import ImageSpec
from regraft.model.artifact import backbone_digest, check_backbone, embedding_size
from regraft.model.card import BackboneCard, EmbeddingKey, Share, complaint, missing_image_field

log = logging.getLogger("regraft.store")

BACKBONES_FOLDER: Final = ".backbones"
"""Inside the model store; the dot hides it from those who look for models there."""
GRAPH_FILE: Final = "backbone.onnx"
DESCRIPTION_FILE: Final = "backbone.json"
SCHEMA_VERSION: Final = 1
DEFAULT_BACKBONE: Final = "efficientnet_lite0"
"""What is taken where nothing else is asked for."""
ADVICE: Final = (
    f"`regraft backbones add {DEFAULT_BACKBONE}` makes one where torch is installed, "
    "`regraft backbones import FILE` brings one that another store exported"
)
"""How a store gets a backbone."""

_DIGEST: Final = re.compile("[0-9a-f]{64}")
_DIGEST_BEGINNING: Final = re.compile("[0-9a-f]{4,64}")
_STAGING: Final = ".staging-"
_MAX_NAME: Final = 128
_MAX_TEXT: Final = 1000
_LOCK_PATIENCE_S: Final = 60.0
"""Longer than another's writing of a large graph takes."""


def _printable(text: str) -> str:
    """Refuse what would move a terminal's cursor."""
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


def _time(text: str) -> str:
    """Refuse what is no time with its zone."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


def _printable_card(card: BackboneCard) -> BackboneCard:
    for text in (card.name, card.weights, *(source.name for source in card.sources)):
        _printable(text)
    return card


_Text = Annotated[str, Field(max_length=_MAX_TEXT), AfterValidator(_printable)]


class PublishedWeights(BaseModel):
    """Facts about weights, from their publisher; empty where unknown.

    Attributes:
        source: the address or package that they came from.
        licence: as their publisher names it.
        imagenet_top1: accuracy on ImageNet, of these very weights with the classifier that they came with.
        imagenet_top1_source: who says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: _Text = ""
    licence: _Text = ""
    imagenet_top1: Share | None = None
    imagenet_top1_source: _Text = ""

    def unmeasured(self) -> "PublishedWeights":
        """Drop the accuracy.

        Nobody published it of weights or pictures that were changed.
        """
        return self.model_copy(update={"imagenet_top1": None, "imagenet_top1_source": ""})


UNPUBLISHED: Final = PublishedWeights()


class StoredBackbone(BaseModel):
    """Description of a backbone, as ``backbone.json`` has it.

    Attributes:
        name: by which people ask for it: the network's, with what tells it from that network's usual weights.
        backbone: the part of the card of every version made of it.
        image: how pictures are prepared for it.
        size_bytes: of the graph's file.
        published: about the weights that it began with.
        added_at: UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int
    name: Annotated[str, Field(min_length=1, max_length=_MAX_NAME), AfterValidator(_printable)]
    backbone: Annotated[BackboneCard, AfterValidator(_printable_card)]
    image: ImageSpec
    embedding_size: int = Field(ge=1)
    size_bytes: int = Field(ge=1)
    published: PublishedWeights
    added_at: Annotated[str, AfterValidator(_time)]

    @property
    def digest(self) -> str:
        """The digest of the graph."""
        return self.backbone.digest

    @property
    def model(self) -> str:
        """The model in whose version it learned, or empty of a network."""
        name, is_version, _ = self.name.rpartition(":")  # neither networks nor models have one in their names
        return name if is_version else ""

    @property
    def embedding_key(self) -> EmbeddingKey:
        """The key of embeddings that were computed on a CPU."""
        return EmbeddingKey(self.digest, self.image.digest())

    def to_json(self) -> str:
        """Return the description as JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def describe(
    graph: onnx.ModelProto, name: str, card: BackboneCard, image: ImageSpec, published: PublishedWeights = UNPUBLISHED
) -> StoredBackbone:
    """Describe a backbone that is about to be stored."""
    return StoredBackbone(
        schema_version=SCHEMA_VERSION,
        name=name,
        backbone=card.model_copy(update={"state": None}),  # which lies beside a version, and goes with it
        image=image,
        embedding_size=embedding_size(graph),
        size_bytes=graph.ByteSize(),
        published=published,
        added_at=utc_now(),
    )


def parse_description(text: str | bytes) -> StoredBackbone:
    """Read a description.

    Raises:
        ArtifactError: not JSON, of a newer schema, or a field is missing or wrong; the text names the field.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"backbone description: not JSON ({error})") from error
    if not isinstance(fields, Mapping):
        raise ArtifactError("backbone description: not a JSON object")
    schema = fields.get("schema_version")
    if type(schema) is int and schema > SCHEMA_VERSION:
        raise ArtifactError(
            f"backbone description: written in schema {schema}, this Regraft reads up to {SCHEMA_VERSION}: "
            "upgrade Regraft"
        )
    if missing := missing_image_field(fields):
        raise ArtifactError(f"backbone description: field {missing!r} is missing")
    try:
        return StoredBackbone.model_validate(fields)
    except ValidationError as error:
        raise ArtifactError(f"backbone description: {complaint(error)}") from error


def check_described(graph: onnx.ModelProto, description: StoredBackbone) -> None:
    """Check that a graph is a backbone, and the one described.

    Raises:
        ArtifactError: it is not; the text says where they differ.
    """
    check_backbone(graph)
    side = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    if side != description.image.crop_px:
        raise ArtifactError(f"the graph takes {side} px, the description crops {description.image.crop_px} px")
    if (width := embedding_size(graph)) != description.embedding_size:
        raise ArtifactError(
            f"the graph's embedding has {width} values, the description says {description.embedding_size}"
        )
    if (size_bytes := graph.ByteSize()) != description.size_bytes:
        raise ArtifactError(f"the graph has {size_bytes} bytes, the description says {description.size_bytes}")
    if backbone_digest(graph) != description.digest:
        raise ArtifactError("the graph is not the one that the description names (digest differs)")


class BackboneStore:
    """The backbones of a model store, safe between threads and processes."""

    def __init__(self, root: Path) -> None:
        """Use the model store ``root``; the first `add` creates a folder."""
        self._store = root
        self.root = root / BACKBONES_FOLDER

    def list(self) -> list[StoredBackbone]:
        """Return the backbones by name and then by age.

        One whose description cannot be read is left out, and the log says why.
        """
        return sorted(self._readable(), key=lambda each: (each.name, each.added_at, each.digest))

    def find(self, wanted: str, may_use: Callable[[StoredBackbone], bool] = lambda _: True) -> StoredBackbone:
        """Return the backbone of a name, or of a digest's beginning.

        Args:
            wanted: the name, or the beginning.
            may_use: tells which of them there are, for whoever asks.

        Raises:
            NotFoundError: there is none; the text says which there are, and how to get one.
            InvalidRequestError: there are several; the text says how to tell them apart.
        """
        backbones = [*filter(may_use, self.list())]
        found = [each for each in backbones if each.name == wanted]
        if not found and _DIGEST_BEGINNING.fullmatch(wanted):
            found = [each for each in backbones if each.digest.startswith(wanted)]
        if not found:
            there_are = ", ".join(dict.fromkeys(each.name for each in backbones)) or "none"
            raise NotFoundError(f"backbone {wanted!r} is not in {self._store} (it has: {there_are}); {ADVICE}")
        if len(found) > 1:
            each = ", ".join(f"{one.digest[:12]} ({one.backbone.weights})" for one in found)
            raise InvalidRequestError(
                f"backbone {wanted!r}: there are {len(found)}: {each}; give the beginning of a digest"
            )
        return found[0]

    def get(self, digest: str) -> StoredBackbone | None:
        """Return the readable backbone of a digest, or None."""
        return next(self._readable(digest), None)

    def file(self, digest: str) -> Path:
        """Return the file of a backbone's graph, there or not."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidRequestError(f"backbone digest {digest!r}: need 64 hexadecimal digits")
        return self.root / digest / GRAPH_FILE

    def read(self, description: StoredBackbone) -> onnx.ModelProto:
        """Read the graph of a backbone, checked against its description.

        Raises:
            NotFoundError: it is gone.
            ArtifactError: it is damaged, or another; the text names the file.
        """
        path = self.file(description.digest)
        try:
            graph = onnx.load_model_from_string(path.read_bytes())
            check_described(graph, description)
        except FileNotFoundError as error:
            raise NotFoundError(f"backbone {description.name!r} is gone from {self._store}; {ADVICE}") from error
        except (DecodeError, OSError) as error:
            raise ArtifactError(f"{path}: not a whole ONNX file ({first_line(error)[:200]})") from error
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from error
        return graph

    def add(self, graph: onnx.ModelProto, description: StoredBackbone) -> StoredBackbone:
        """Store a backbone, unless it is there.

        Returns:
            What the store says of it: of a graph that was there, whoever added it first.

        Raises:
            ArtifactError: graph and description do not fit together.
            StorageError: the disk refused; the store is as it was.
        """
        check_described(graph, description)
        if there := self._whole(description.digest):
            return there
        with storage_errors(f"cannot store the backbone {description.name!r}"):
            self.root.mkdir(parents=True, exist_ok=True)
            with self._writing():
                if there := self._whole(description.digest):  # another was quicker
                    return there
                staging = self.root / f"{_STAGING}{token_hex(8)}"
                staging.mkdir()
                try:
                    write_durably(staging / GRAPH_FILE, graph.SerializeToString(deterministic=True))
                    write_durably(staging / DESCRIPTION_FILE, description.to_json().encode())
                    self._put_aside(description.digest)
                    staging.rename(self.root / description.digest)
                except BaseException:
                    shutil.rmtree(staging, ignore_errors=True)
                    raise
                fsync_folder(self.root)
                fsync_folder(self._store)
        return description

    def remove(self, description: StoredBackbone, used_by: Sequence[str] = ()) -> None:
        """Remove a backbone that no model needs.

        Args:
            description: of it.
            used_by: the models that began with it.

        Raises:
            PreconditionError: there are such.
            NotFoundError: it is gone.
            StorageError: the disk refused.
        """
        if used_by:
            raise PreconditionError(
                f"backbone {description.name!r} is what {', '.join(map(repr, used_by))} began with: delete them first"
            )
        with storage_errors(f"cannot remove the backbone {description.name!r}"):
            if not self.file(description.digest).parent.is_dir():
                raise NotFoundError(f"backbone {description.name!r} is gone from {self._store}")
            with self._writing():
                self._put_aside(description.digest)
                fsync_folder(self.root)

    def _readable(self, digest: str = "*") -> Iterator[StoredBackbone]:
        for folder in self.root.glob(digest):
            if not _DIGEST.fullmatch(folder.name):
                continue
            try:
                yield self._describe(folder.name)
            except FileNotFoundError:
                continue  # removed since it was listed
            except (OSError, ArtifactError) as error:
                log.warning("%s cannot be read, so it is left out: %s", folder, first_line(error))

    def _describe(self, digest: str) -> StoredBackbone:
        """Read a description, which must be the folder's."""
        description = parse_description((self.root / digest / DESCRIPTION_FILE).read_bytes())
        if description.digest != digest:
            raise ArtifactError("its description is of another backbone (digest differs)")
        return description

    def _whole(self, digest: str) -> StoredBackbone | None:
        """Return a stored backbone's description if its graph is sound too."""
        try:
            description = self._describe(digest)
            self.read(description)
        except (OSError, ArtifactError, NotFoundError):
            return None
        return description

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock, and remove what a writer that was killed left."""
        with locked(self.root / ".lock", _LOCK_PATIENCE_S):
            self._clear()
            yield
            self._clear()

    def _clear(self) -> None:
        for left in self.root.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _put_aside(self, digest: str) -> None:
        """Take a folder, if there, out of sight by one rename."""
        folder = self.root / digest
        if folder.exists():
            folder.rename(self.root / f"{_STAGING}{token_hex(8)}")
