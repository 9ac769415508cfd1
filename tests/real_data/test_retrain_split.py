"""Photographs keep their side of the split, whatever bytes they come in."""

import io
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from regraft.label_rules import image_hash, is_holdout
from regraft.stores.examples import open_examples
from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE, ModelStore
from tests.real_data.conftest import Trainer
from training.head.features import Features, load_features
from training.retrain.job import run_job


def one_more_byte(data: bytes, held: bool) -> bytes:
    """Return a JPEG with a byte behind its end by which its hash puts it on this side."""
    every = (data + bytes([byte]) for byte in range(256))
    return next(longer for longer in every if is_holdout(image_hash(longer)) is held)


def encoded(image: Image.Image, held: bool) -> bytes:
    """Return a JPEG of a quality, about 60, by which its hash puts it on this side."""
    for quality in count(60):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if is_holdout(image_hash(buffer.getvalue())) is held:
            break
    return buffer.getvalue()


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 4 // 5, image.height * 4 // 5))


VERSIONS: dict[str, Callable[[bytes, bool], bytes]] = {
    "one more byte": one_more_byte,
    "another quality": lambda data, held: encoded(Image.open(io.BytesIO(data)), held),
    "smaller": lambda data, held: encoded(smaller(Image.open(io.BytesIO(data))), held),
    "mirrored": lambda data, held: encoded(ImageOps.mirror(Image.open(io.BytesIO(data))), held),
}


@pytest.fixture
def store(trainer: Trainer) -> ModelStore:
    return ModelStore(trainer("hymenoptera/train", "insects").path.parents[2])


def learn(store: ModelStore, pictures: list[tuple[bytes, str]]) -> Features:
    with closing(open_examples(store.root)) as examples:
        for data, label in pictures:
            examples.add("insects", data, label)
        job = run_job(store, examples, examples.jobs.create("insects", {"gate": "off"}, "Ann").id)
    assert job.state is JobState.SUCCEEDED, job.message
    return load_features(store.folder("insects", 2) / FEATURES_FILE)


def rows(features: Features) -> dict[str, tuple[bool, int]]:
    sides = zip(map(bool, features.is_holdout), features.group.tolist(), strict=True)
    return dict(zip(features.sha256, sides, strict=True))


def test_a_photograph_in_other_bytes_is_on_the_side_of_the_one_that_is_known(
    store: ModelStore, photographs: Path
) -> None:
    known = rows(load_features(store.folder("insects", 1) / FEATURES_FILE))
    sent: list[tuple[bytes, str]] = []
    originals: list[str] = []
    for label in ("ants", "bees"):
        for file in sorted((photographs / "hymenoptera/train" / label).glob("*.jpg"))[:20]:
            data = file.read_bytes()
            sha256 = image_hash(data)
            kind = list(VERSIONS.values())[len(sent) % len(VERSIONS)]
            sent.append((kind(data, not known[sha256][0]), label))
            originals.append(sha256)

    now = rows(learn(store, sent))

    assert {held for held, _ in map(known.__getitem__, originals)} == {False, True}
    same = [now[image_hash(data)] == known[sha256] for (data, _), sha256 in zip(sent, originals, strict=True)]
    assert all(same[:: len(VERSIONS)])  # one more byte
    assert same.count(True) >= 0.9 * len(sent)


def test_hardly_any_further_photograph_is_left_out(store: ModelStore, photographs: Path) -> None:
    files = sorted((photographs / "hymenoptera/val").rglob("*.jpg"))
    sent = [(file.read_bytes(), file.parent.name) for file in files]

    now = rows(learn(store, sent))

    learned = [data for data, _ in sent if image_hash(data) in now]
    assert len(learned) >= 0.98 * len(sent)
    moved = [data for data in learned if now[image_hash(data)][0] is not is_holdout(image_hash(data))]
    assert len(moved) <= 0.02 * len(sent)
