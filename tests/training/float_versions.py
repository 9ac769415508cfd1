"""A version of convolutions in float, on pictures of 16 x 16 px, for what makes other files of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from regraft.image.decode import decode_crop
from regraft.label_rules import image_hash
from regraft.model.artifact import EMBEDDING, IMAGE
from regraft.model.session import open_session
from regraft.stores.models import ModelStore
from tests.tiny import SPEC, picture
from tests.training.conftest import as_exported
from tests.training.convolutions import conv_backbone
from training.head.features import assemble
from training.head.fit import fit
from training.versions.publish import Provenance, build, publish

NAME = "colours"
LABELS = ("blue", "green", "red")
PICTURES = 15


def photos(folder: Path) -> Path:
    """Write the pictures of the tiny version, in folders that have nothing to do with their labels."""
    for label in LABELS:
        for number in range(PICTURES):
            path = folder / str(number % 4) / f"{label}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(label, number))
    return folder


def publish_float(
    store: ModelStore,
    labels: tuple[str, ...] = LABELS,
    *,
    loud: float = 1.0,
    offset: float = 0.1,
    depth: int = 1,
    holdout: bool = True,
    unreadable: Sequence[bytes] = (),
    settings: Mapping[str, object] = MappingProxyType({}),
) -> int:
    """Publish a version of convolutions, and make it the champion.

    ``unreadable`` are files of red that an earlier decoder read: the first is holdout, the others not.
    """
    backbone = conv_backbone(loud=loud, offset=offset, depth=depth)
    session = open_session(backbone.SerializeToString(), provider="cpu", threads=1).session
    rows, embeddings = [], {}
    for label in labels:
        for number in range(PICTURES):
            data = picture(label, number)
            rows.append((image_hash(data), label, holdout and number % 3 == 0))
            embeddings[image_hash(data)] = session.run([EMBEDDING], {IMAGE: decode_crop(data, SPEC)[None]})[0][0]
    for number, data in enumerate(unreadable):
        rows.append((image_hash(data), "red", number == 0))
        embeddings[image_hash(data)] = embeddings[image_hash(picture("red", number))]
    features = assemble(labels, rows, embeddings)
    challenger = build(as_exported(backbone), fit(features), features, Provenance(NAME, "probe", settings, seed=3))
    version = publish(store, challenger, left_out=[], who="test", why="tiny")
    store.move(NAME, version, who="test", why="tiny")
    return version
