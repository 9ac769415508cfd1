"""Every family that Regraft names, from the network to an answer of the serving engine. Random weights, no download."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from regraft.image.decode import decode_crop
from regraft.image.spec import Crop, ImageSpec
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.artifact import IMAGE, PROBABILITIES, Artifact, FloatArray, backbone_digest
from regraft.model.card import EmbeddingKey
from regraft.model.session import open_session
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan
from tests.tiny import picture
from training.backbones.build import build_backbone
from training.backbones.cache import ExportedBackbone, embedding_cache
from training.backbones.catalogue import FAMILIES
from training.backbones.onnx_export import export_backbone
from training.head.features import Embedder, Features, assemble
from training.head.fit import fit
from training.versions.publish import Provenance, build, prove

pytestmark = pytest.mark.usefixtures("one_torch_thread")

LABELS = ("blue", "red")
TRAIN, HOLDOUT = 2, 1
ASKED = 2
"""Pictures that the finished file is asked about; two are enough to be mistaken for each other."""

PLAN = ExecutionPlan(lanes=1, threads=1, max_batch=2)
"""Given: to measure how vgg16 runs fastest takes a minute. `Engine.warm_up` still runs the largest batch there is."""

# A network that pools over whatever area is left, or has a token for each patch, has the same graph at any size; the
# large ones are spared arithmetic.
SMALLER_PX = {"convnext_tiny": 96, "densenet121": 96, "vit_b_16": 96}

HEAVY = {
    *("densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mobilenet_v3_small", "regnet_y_400mf"),
    *("shufflenet_v2_x0_5", "swin_t", "vgg16", "vit_b_16"),
}
"""Their export takes torch 20 s and more, or half a gigabyte; `make bench` plays them."""

WITH_WEIGHTS = {"efficientnet_lite0", "mobilenet_v2", "squeezenet1_1"}
"""Go all the way on photographs, in tests/real_data."""


@dataclass(frozen=True)
class Pictures:
    """A few pictures: by hash the file, and (hash, label, whether it is holdout)."""

    files: dict[str, Path]
    rows: list[tuple[str, str, bool]]

    def crops(self, features: Features, spec: ImageSpec) -> list[Crop]:
        return [decode_crop(self.files[sha256].read_bytes(), spec) for sha256 in features.sha256[:ASKED]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = tmp_path_factory.mktemp("pictures")
    made = Pictures({}, [])
    for label in LABELS:
        for number in range(TRAIN + HOLDOUT):
            data = picture(label, number)
            sha256 = image_hash(data)
            made.files[sha256] = folder / f"{label}{number}.png"
            made.files[sha256].write_bytes(data)
            made.rows.append((sha256, label, number >= TRAIN))
    return made


@pytest.fixture
def model_file(tmp_path: Path) -> Iterator[Path]:
    """A file that goes away at once: pytest keeps its folders, and these models have up to half a gigabyte."""
    path = tmp_path / "model.onnx"
    yield path
    path.unlink(missing_ok=True)


def train(name: str, pictures: Pictures, model_file: Path) -> list[Crop]:
    """Export a network, embed the pictures, fit and prove a head, write the model file, and return the crops."""
    network = build_backbone(name, "none", 0, SMALLER_PX.get(name))
    backbone, spec = export_backbone(network), network.spec  # compared with torch at batches of 1, 2 and 7
    del network  # of the largest no more copies than needed
    key = EmbeddingKey(backbone_digest(backbone), spec.digest())
    with embedding_cache(model_file.parent) as cache:
        embeddings, failures = Embedder.open(backbone.SerializeToString(), spec, key).embed(pictures.files, cache)
    assert not failures
    features = assemble(LABELS, pictures.rows, embeddings)
    assert_usable(features.embedding)
    fitted = fit(features)
    exported = ExportedBackbone(backbone, name, "random", spec, key.backbone)
    challenger = build(exported, fitted, features, Provenance("colours", "probe", {}, seed=0))
    crops = pictures.crops(features, spec)
    prove(challenger, fitted.head, crops, list(features.embedding[:ASKED]))
    onnx.save_model(challenger.model, model_file)
    return crops


def assert_usable(embedding: FloatArray) -> None:
    """Check that pictures differ; random weights may make very small or large numbers of them, so by their share."""
    assert np.isfinite(embedding).all()
    assert np.abs(embedding - embedding[0]).max() > 1e-4 * np.abs(embedding).max() > 0


def served_probabilities(engine: Engine, served: Artifact, crops: list[Crop]) -> FloatArray:
    """Return what the serving engine answers, as a server would ask it."""
    engine.warm_up(served.head, served.card.image.crop_px)
    return np.stack([engine.run([crop], [served.head])[0].probabilities for crop in crops])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.heavy if name in HEAVY else ())
        for name, *_ in FAMILIES
        if name not in WITH_WEIGHTS
    ],
)
def test_a_network_of_every_family_exports_learns_and_answers(name: str, pictures: Pictures, model_file: Path) -> None:
    crops = train(name, pictures, model_file)

    opened = open_session(model_file, provider="cpu", threads=1)
    served = served_probabilities(Engine(opened, PLAN), artifact.read(model_file), crops)

    expected = np.concatenate([opened.session.run([PROBABILITIES], {IMAGE: crop[None]})[0] for crop in crops])
    assert expected.shape == (ASKED, len(LABELS))
    np.testing.assert_allclose(served, expected, atol=1e-6)
