"""Pictures, features and versions for the tests of the training side. torch is imported where a test asks for it."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest

from regraft.files import locked
from regraft.image.decode import decode_crop
from regraft.label_rules import image_hash
from regraft.model.artifact import EMBEDDING, IMAGE, FloatArray, backbone_digest
from regraft.model.card import EmbeddingKey
from regraft.model.session import OpenSession, open_session
from tests import REPOSITORY
from tests.tiny import SPEC, picture, tiny_backbone
from training.backbones.cache import ExportedBackbone, load_backbone
from training.head.additional import Additional
from training.head.features import Features, assemble
from training.head.fit import fit
from training.versions.publish import Challenger, Provenance, build

COLOUR_KEY = EmbeddingKey(backbone_digest(tiny_backbone()), SPEC.digest())

NO_SETTINGS: Mapping[str, object] = MappingProxyType({})
CRAYONS = ("blue", "green", "red")

Row = tuple[bytes, str, bool]
"""A picture, its label, and whether it is holdout."""


@cache
def tiny_session() -> OpenSession:
    """Return the session on the tiny backbone that all tests of a process share."""
    return open_session(tiny_backbone().SerializeToString(), provider="cpu", threads=1)


@cache
def embed(data: bytes) -> FloatArray:
    """Return what the tiny backbone makes of a picture."""
    crop = decode_crop(data, SPEC)
    return np.asarray(tiny_session().session.run([EMBEDDING], {IMAGE: crop[None]})[0][0], np.float32)


def colour_rows(label: str, numbers: Iterable[int], *, held: bool, called: str = "") -> list[Row]:
    """Return pictures of one colour, labelled ``called``, which is the colour unless said otherwise."""
    return [(picture(label, number), called or label, held) for number in numbers]


def features_of(labels: tuple[str, ...], rows: Sequence[Row]) -> Features:
    """Return the features that the tiny backbone makes of labelled pictures."""
    named = {image_hash(data): data for data, _, _ in rows}
    embeddings = {sha256: embed(data) for sha256, data in named.items()}
    return assemble(labels, [(image_hash(data), label, held) for data, label, held in rows], embeddings)


@cache
def colour_features(labels: tuple[str, ...] = ("blue", "red"), train: int = 12, holdout: int = 5) -> Features:
    """Return features of so many pictures of each colour."""
    rows: list[Row] = []
    for label in labels:
        rows += colour_rows(label, range(train), held=False)
        rows += colour_rows(label, range(train, train + holdout), held=True)
    return features_of(labels, rows)


def crayons(folder: Path, count: int) -> Path:
    """Write so many pictures of each of `CRAYONS` into ``folder``, a folder for each."""
    for label in CRAYONS:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            (folder / label / f"{number}.png").write_bytes(picture(label, number, side_px=24))
    return folder


def as_exported(model: onnx.ModelProto, name: str = "tiny", weights: str = "none") -> ExportedBackbone:
    """Return a backbone for the pictures of `tests.tiny`, as an export leaves it."""
    return ExportedBackbone(model, name, weights, SPEC, backbone_digest(model))


def colour_challenger(
    features: Features,
    name: str = "colours",
    parent: int | None = None,
    *,
    additional: Additional | None = None,
    settings: Mapping[str, object] = NO_SETTINGS,
) -> Challenger:
    """Fit a head on features of the tiny backbone, and build the file of the version."""
    return build(
        as_exported(tiny_backbone()),
        fit(features, additional=additional),
        features,
        Provenance(name, "probe", {"data": "a test", **settings}, seed=0, parent_version=parent),
        additional=additional,
    )


def blobs(
    counts: Sequence[int], size: int, *, apart: float = 3.0, seed: int = 0, holdout: int = 0, centres_seed: int = 7
) -> Features:
    """Return embeddings [n, size] drawn round a centre for each class, ``apart`` standard deviations from the origin.

    Args:
        counts: training rows of each class.
        size: D.
        apart: length of the centres.
        seed: of the rows.
        holdout: holdout rows of each class.
        centres_seed: of the centres.
    """
    centres = np.random.default_rng(centres_seed).normal(size=(len(counts), size))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    rows: list[tuple[str, str, bool]] = []
    embeddings: dict[str, FloatArray] = {}
    for index, count in enumerate(counts):
        for number in range(count + holdout):
            sha256 = image_hash(f"{seed}/{index}/{number}".encode())
            rows.append((sha256, f"class {index}", number >= count))
            embeddings[sha256] = np.asarray(centres[index] + generator.normal(size=size), np.float32)
    return assemble(tuple(f"class {index}" for index in range(len(counts))), rows, embeddings)


def huge_png() -> bytes:
    """Return a PNG of a few hundred bytes that says it has 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 150_001))
        + chunk(b"IEND", b"")
    )


def block(folder: Path, packages: Iterable[str], statement: str) -> dict[str, str]:
    """Write packages that run ``statement`` when they are imported, and return the environment that puts them first.

    Returns:
        Environment variables for a child process that starts in the repository.
    """
    for package in packages:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"{statement}\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def in_a_child(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run Python with ``arguments`` in the repository, and wait for it."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one thread, or the processes of pytest-xdist would fight for the same cores."""
    import torch  # noqa: PLC0415 - most tests in this folder do without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def backbones_folder(run_folder: Path) -> Path:
    """Return a cache of this folder's own."""
    folder = run_folder / "shared-backbones"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def exported(backbones_folder: Path) -> Callable[[str], ExportedBackbone]:
    """Return a function that exports a network with random weights once in the whole run."""

    def load(name: str) -> ExportedBackbone:
        with locked(backbones_folder / f"{name.replace('/', '-')}.lock"):  # or two processes would export it at once
            return load_backbone(name, "none", 0, backbones_folder)

    return load


@pytest.fixture(scope="module")
def resnet_at_hand(backbones_folder: Path, exported: Callable[[str], ExportedBackbone]) -> Iterator[None]:
    """Let every training of a module find timm/test_resnet, which was exported once."""
    exported("timm/test_resnet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(backbones_folder))
        yield
