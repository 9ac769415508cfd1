"""A classifier of torchvision or timm is taken from the file of its state dict, and answers as torch does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from regraft.errors import InvalidRequestError
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.stores.models import STATE_FILE
from tests.tiny import picture
from training.backbones.weights import read_state
from training.head.features import Embedder
from training.importing.classifier import ImageRule
from training.importing.import_version import ImportSettings, import_version
from training.importing.torch_file import import_source, import_torch
from training.train import TrainResult
from training.versions.source import Source

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BACKBONE = "timm/test_resnet"
LABELS = ("red", "green", "blue")


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("test_resnet", num_classes=classes)
    return made.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a plain script leaves: ``torch.save(model.state_dict())``."""
    return saved(tmp_path_factory.mktemp("file") / "crayons.pth", network().state_dict())


def saved(path: Path, what: object) -> Path:
    torch.save(what, path)
    return path


@pytest.fixture(scope="module")
def imported(file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    store = tmp_path_factory.mktemp("store") / "models"
    return import_version(ImportSettings(file, "crayons", store, BACKBONE, labels=LABELS), cache=store.parent / "cache")


def test_the_version_answers_as_torch_does(imported: TrainResult) -> None:
    made, whole = artifact.read(imported.path), network()
    crops = [decode_crop(picture(label, 1, side_px=200), made.card.image) for label in LABELS]
    key = made.card.embedding_key
    usual: Any = whole.pretrained_cfg
    mean, std = (torch.tensor(usual[each]).view(1, 3, 1, 1) for each in ("mean", "std"))
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255

    found = Embedder.open(imported.path, made.card.image, key).run(crops) @ made.head.weight.T + made.head.bias

    with torch.inference_mode():
        expected = whole((pixels - mean) / std).numpy()
    assert np.abs(found - expected).max() <= 1e-3 * expected.std()


def test_its_weights_are_kept_to_fine_tune_from(imported: TrainResult) -> None:
    kept = imported.card.backbone.state

    assert kept is not None
    assert Source(imported.path.parents[2], "crayons", 1).state() == imported.path.with_name(STATE_FILE)


def test_a_safetensors_file_is_read_as_a_pickled_one_is(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "crayons.safetensors"
    safetensors.torch.save_file(torch.load(file, weights_only=True), again)

    one, other = read_state(file), read_state(again)

    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_imagenets_own_classifier_answers_1000_labels_and_keeps_no_weights(tmp_path: Path) -> None:
    made = import_source(BACKBONE, str(saved(tmp_path / "thousand.pth", network(1000).state_dict())), ImageRule(), ())

    assert made.weight.shape[0] == len(made.labels) == 1000
    assert {"tench", "hotdog", "toilet tissue"} <= set(made.labels)
    assert made.backbone.state is None  # they are where they were


def test_a_network_without_imagenets_classifier_has_none_to_bring() -> None:
    with pytest.raises(InvalidRequestError, match="come without a classifier of ImageNet's 1,000 categories"):
        import_source(BACKBONE, "none", ImageRule(), ())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (network, "it holds Python objects"),
        (lambda: {"weight": torch.zeros(3)}, "does not fit timm/test_resnet: it lacks"),
        (
            lambda: {key: tensor for key, tensor in network().state_dict().items() if not key.startswith("fc")},
            r"has no head, so it is no classifier: `regraft train --backbone timm/test_resnet --weights what\.pth`",
        ),
        (
            lambda: {**network().state_dict(), "fc.2.weight": torch.zeros(3, 3)},
            r"its head is more than one linear layer \('fc.weight', 'fc.bias', 'fc.2.weight'\)",
        ),
        (
            lambda: {**network().state_dict(), "fc.weight": torch.zeros(3, 7)},
            "its last layer takes 96 numbers, the head 7",
        ),
    ],
)
def test_files_that_are_no_such_classifier_are_refused_in_plain_words(
    tmp_path: Path, what: Callable[[], object], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        import_torch(saved(tmp_path / "what.pth", what()), BACKBONE, ImageRule(), LABELS, keep=False)


@pytest.mark.parametrize(
    ("name", "rule", "labels", "said"),
    [
        ("timm/test_vit", ImageRule(), LABELS, "crayons.pth does not fit timm/test_vit: it lacks"),
        ("no such", ImageRule(), LABELS, "--backbone: no network 'no such'"),
        (BACKBONE, ImageRule(), LABELS[:2], "--labels: 2 labels, but crayons.pth has 3 answers"),
        (BACKBONE, ImageRule(std=(0, 0, 0)), LABELS, "--std: 0,0,0; need more than 0 each"),
        (BACKBONE, ImageRule(resize="stretch"), LABELS, "--resize.*resize is 'stretch'"),
    ],
)
def test_what_does_not_fit_the_file_is_refused_by_the_name_of_the_flag(
    file: Path, name: str, rule: ImageRule, labels: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        import_torch(file, name, rule, labels, keep=False)


def test_a_state_dict_without_the_name_of_its_network_is_refused(file: Path) -> None:
    with pytest.raises(InvalidRequestError, match="a state dict does not say of which network it is: add --backbone"):
        ImportSettings(file, "crayons", labels=LABELS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"gone\.pth: there is no such file"):
        import_torch(tmp_path / "gone.pth", BACKBONE, ImageRule(), LABELS, keep=False)
