"""The folder REGRAFT_WEIGHTS stands in for packages and downloads."""

from pathlib import Path

import pytest
import torch

from regraft.errors import InvalidRequestError
from training.backbones.build import build_backbone
from training.backbones.cache import weights_origin
from training.backbones.catalogue import own_weights, resolve_weights
from training.backbones.listing import list_backbones
from training.strategies.finetuning.coordinator import Origin

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BACKBONE = "timm/test_resnet"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGRAFT_WEIGHTS", str(tmp_path))
    return tmp_path


def save(folder: Path, seed: int) -> Path:
    file = folder / "timm-test_resnet-mine.pth"
    torch.save(build_backbone(BACKBONE, "none", seed).network.state_dict(), file)
    return file


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["net-b.pth", "net-a.pth", "net.pt", "net.pth"], "net.pth"),
        (["net-b.pth", "net-a.pth", "net.pt"], "net.pt"),
        (["net-b.pth", "net-a.pth", "net-0.pt"], "net-a.pth"),
        (["net-0.pt", "net.onnx"], "net-0.pt"),
        (["network.pth", "my-net.pth", "net_1.pth"], None),
    ],
)
def test_the_plain_name_comes_first(folder: Path, files: list[str], found: str | None) -> None:
    for name in files:
        (folder / name).touch()

    assert own_weights("net") == (folder / found if found else None)


def test_without_the_variable_nothing_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGRAFT_WEIGHTS", raising=False)

    assert resolve_weights("net", "default") == "default"


def test_only_default_is_replaced(folder: Path) -> None:
    (folder / "net.pth").touch()

    assert [resolve_weights("net", asked) for asked in ("default", "none", "other.pth")] == [
        str(folder / "net.pth"),
        "none",
        "other.pth",
    ]


def test_a_variable_that_names_no_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_WEIGHTS", str(folder / "nowhere"))

    with pytest.raises(InvalidRequestError, match=r"REGRAFT_WEIGHTS: .*nowhere' is not a folder"):
        weights_origin(BACKBONE, "default", 0)


def test_the_origin_the_network_and_its_fine_tuning_agree_on_the_file(folder: Path) -> None:
    file = save(folder, seed=5)

    expected = build_backbone(BACKBONE, str(file), 0).network.state_dict()

    for backbone in (build_backbone(BACKBONE, "default", 0), Origin(BACKBONE, "default", 0, None).build()):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.network.state_dict().items())
    assert weights_origin(BACKBONE, "default", 0) == weights_origin(BACKBONE, str(file), 0)


def test_the_origin_changes_with_the_file(folder: Path) -> None:
    save(folder, seed=5)
    before = weights_origin(BACKBONE, "default", 0)
    save(folder, seed=6)

    assert weights_origin(BACKBONE, "default", 0) != before


def test_the_list_of_networks_names_the_file(folder: Path) -> None:
    save(folder, seed=5)

    ((entry,), _) = list_backbones(BACKBONE)

    assert entry["weights"] == "in REGRAFT_WEIGHTS: timm-test_resnet-mine.pth"
