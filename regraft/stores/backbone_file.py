"""Files of backbones, which carry them from store to store.

It is the very ONNX file of the store, which runs anywhere, with the description as its metadata.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from regraft.errors import ArtifactError, InvalidRequestError, RegraftError, StorageError, first_line
from regraft.files import storage_errors, text_of, utc_now, write_durably
from regraft.model.backbone_trial import try_backbone
from regraft.stores.backbones import BackboneStore, StoredBackbone, parse_description

log = logging.getLogger("regraft.store")

DESCRIPTION_KEY: Final = "regraft.backbone"
_MAX_BYTES: Final = 2**31
"""No ONNX file in one part is larger."""
_MAX_DESCRIPTION: Final = 2**16


def export_backbone(store: BackboneStore, wanted: str, file: Path) -> StoredBackbone:
    """Write a backbone into a new file; return its description.

    Args:
        store: that has it.
        wanted: its name, or the beginning of its digest.
        file: the file, which must not be there.

    Raises:
        InvalidRequestError: the file is there, or several have the name.
        NotFoundError: there is no such backbone.
        ArtifactError: it is damaged.
        StorageError: the file cannot be written.
    """
    description = store.find(wanted)
    if file.exists():
        raise InvalidRequestError(f"FILE: {text_of(file)} is there already: name a new one")
    graph = store.read(description)
    helper.set_model_props(graph, {DESCRIPTION_KEY: description.to_json()})
    with storage_errors(f"cannot write {text_of(file)}"):
        write_durably(file, graph.SerializeToString(deterministic=True))
    return description


def import_backbone(store: BackboneStore, file: Path, trial: Callable[[bytes], None] = try_backbone) -> StoredBackbone:
    """Bring a backbone from a file into a store; return its description.

    Nothing of the file is believed: the graph is tried in a process of its own, and has to have the digest that the
    description says.

    Args:
        store: that gets it.
        file: of `export_backbone`.
        trial: of the file's bytes, before anything in this process reads them; a test's own.

    Raises:
        InvalidRequestError: there is no such file.
        ArtifactError: it is no backbone that a Regraft exported, or not whole; the text names the file.
        StorageError: the store could not be written.
    """
    if not file.is_file():
        raise InvalidRequestError(f"FILE: there is no file {text_of(file)}")
    with storage_errors(f"cannot read {text_of(file)}"):
        size_bytes = file.stat().st_size
        data = file.read_bytes() if size_bytes < _MAX_BYTES else b""
    try:
        if not data:
            raise ArtifactError(f"{size_bytes} bytes: a backbone has more than none and less than {_MAX_BYTES}")
        trial(data)
        return store.add(*_taken_apart(data))
    except ArtifactError as error:
        raise ArtifactError(f"{text_of(file)}: {error}") from error


def bring_backbones(store: BackboneStore, folder: Path) -> list[StoredBackbone]:
    """Bring the backbones of a folder of files; return their descriptions.

    The files are trusted as the program is, with which they come. One that cannot be brought is logged, and holds up
    no other.

    Raises:
        StorageError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise StorageError(f"--backbones: there is no folder {text_of(folder)}")
    brought: list[StoredBackbone] = []
    for file in sorted(folder.glob("*.onnx")):
        try:
            brought.append(import_backbone(store, file, trial=_trust))
        except RegraftError as error:
            log.warning("no backbone comes from %s: %s", file, first_line(error))
    return brought


def _trust(_data: bytes) -> None:
    """Let a file pass."""


def _taken_apart(data: bytes) -> tuple[onnx.ModelProto, StoredBackbone]:
    """Return graph and description of a file's bytes."""
    try:
        graph = onnx.load_model_from_string(data)
    except DecodeError as error:  # the trial has read it already
        raise ArtifactError("not a whole ONNX file") from error
    text = next((prop.value for prop in graph.metadata_props if prop.key == DESCRIPTION_KEY), "")
    if not text:
        raise ArtifactError(f"no description (metadata {DESCRIPTION_KEY!r}): not written by `regraft backbones export`")
    if len(text) > _MAX_DESCRIPTION:
        raise ArtifactError(f"its description has {len(text)} characters, {_MAX_DESCRIPTION} at most")
    del graph.metadata_props[:]
    return graph, parse_description(text).model_copy(update={"added_at": utc_now()})
