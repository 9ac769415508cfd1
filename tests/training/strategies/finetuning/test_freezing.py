from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from regraft.errors import InvalidRequestError
from tests.training.networks import WIDTH, tiny_network
from training.backbones.build import build_backbone
from training.strategies.finetuning.freezing import Frozen, frozen_stages, parameter_groups, stages

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TINY_STAGES = ["stem", "norm", "body.first", "body.second", "body.third", "last", "last_norm"]
NETWORKS = [
    "resnet18",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "densenet121",
    "swin_t",
    "efficientnet_lite0",
    "timm/test_resnet",
    "timm/test_vit",
    "timm/test_convnext",
    "timm/test_efficientnet",
    "timm/test_mambaout",
]
STAGES = {
    "resnet18": ["conv1", "bn1", *(f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1))],
    "efficientnet_lite0": ["conv_stem", "bn1", *(f"blocks.{block}" for block in range(7)), "conv_head", "bn2"],
    "timm/test_vit": ["patch_embed", *(f"blocks.{block}" for block in range(6)), "norm"],
}
HEAD = nn.Linear(WIDTH, 3)

State = dict[str, torch.Tensor]


def network_of(name: str) -> nn.Module:
    return build_backbone(name, "none", 0).network


def names_of(network: nn.Module) -> list[str]:
    return [stage.name for stage in stages(network)]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_one_stage_or_in_none(name: str) -> None:
    network = network_of(name)

    found = stages(network)

    inside = [id(parameter) for stage in found for parameter in stage.module.parameters()]
    assert len(inside) == len(set(inside))
    assert set(inside) <= {id(parameter) for parameter in network.parameters()}
    sizes = [sum(parameter.numel() for parameter in stage.module.parameters()) for stage in found]
    assert len(found) >= 5
    assert min(sizes) > 0
    assert sum(sizes) > 0.95 * sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stage_is_found_in_the_network_by_its_name(name: str) -> None:
    network = network_of(name)

    assert all(network.get_submodule(stage.name) is stage.module for stage in stages(network))
    assert len(set(names_of(network))) == len(stages(network))


@pytest.mark.parametrize("name", STAGES)
def test_stages_go_from_the_picture_to_the_embedding(name: str) -> None:
    assert names_of(network_of(name)) == STAGES[name]


def test_containers_and_parts_without_parameters_are_no_stages() -> None:
    assert names_of(tiny_network()) == TINY_STAGES


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        ("0", []),
        ("1", TINY_STAGES),
        ("1.0", TINY_STAGES),
        ("0.5", TINY_STAGES[:4]),
        ("0.05", []),
        ("stem", TINY_STAGES[:1]),
        ("body.first", TINY_STAGES[:3]),
        ("body", TINY_STAGES[:5]),
        ("last", TINY_STAGES[:6]),
        ("last_norm", TINY_STAGES),
    ],
)
def test_freezing_goes_up_to_a_share_or_a_name_or_the_beginning_of_one(freeze: str, expected: list[str]) -> None:
    assert [stage.name for stage in frozen_stages(tiny_network(), freeze)] == expected


def test_the_name_of_a_layer_means_all_of_its_blocks() -> None:
    found = frozen_stages(network_of("resnet18"), "layer2")

    assert [stage.name for stage in found] == STAGES["resnet18"][:6]


@pytest.mark.parametrize("freeze", ["layer9", "bod", "body.", "", "pool", "Stem", "0.5.1"])
def test_a_name_of_no_stage_is_refused_with_those_there_are(freeze: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"--freeze: no stage .*stem, norm, body\.first, .*last_norm"):
        frozen_stages(tiny_network(), freeze)


@pytest.mark.parametrize("freeze", ["-0.1", "1.01", "2", "nan", "inf", "-inf"])
def test_a_share_that_is_none_is_refused(freeze: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"--freeze: .* is not a share from 0 to 1"):
        frozen_stages(tiny_network(), freeze)


def state_of(module: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def learn(network: nn.Module, frozen: Frozen, side_px: int = 8, steps: int = 3) -> None:
    """Take steps that move whatever may move: towards an embedding of nothing but 5."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(
        parameter_groups(network, HEAD, head_lr=0.1, backbone_lr=0.1, layer_decay=0.9, weight_decay=0.1)
    )
    for _ in range(steps):
        frozen.train()
        loss = ((network(torch.rand(4, 3, side_px, side_px)).flatten(1) - 5) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.train()  # as whoever owns the network may do at any time


def changed(before: State, after: State) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


CASES: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "tiny": (tiny_network, "body.second", 8),
    "timm/test_resnet": (lambda: network_of("timm/test_resnet"), "layer2", 64),
    "timm/test_vit": (lambda: network_of("timm/test_vit"), "0.5", 160),
    "mobilenet_v3_small": (lambda: network_of("mobilenet_v3_small"), "0.4", 64),
}


@pytest.mark.parametrize("train_norms", [False, True])
@pytest.mark.parametrize("which", CASES)
def test_what_is_frozen_stays_the_same_to_the_last_bit_and_the_rest_learns(which: str, train_norms: bool) -> None:
    make, freeze, side_px = CASES[which]
    network = make()
    frozen = Frozen(network, freeze, train_norms=train_norms)
    before = state_of(network)

    learn(network, frozen, side_px)

    moved = changed(before, state_of(network))
    assert frozen.names
    assert not [name for name in moved if name.startswith(tuple(f"{stage}." for stage in frozen.names))]
    learning = [stage.name for stage in stages(network) if stage.name not in frozen.names]
    weights = {name for name in moved if not is_statistic(name)}
    assert all(any(name.startswith(f"{stage}.") for name in weights) for stage in learning)
    statistics = {
        name for name in before if is_statistic(name) and name.startswith(tuple(f"{stage}." for stage in learning))
    }
    assert {name for name in moved if is_statistic(name)} == (statistics if train_norms else set())


@pytest.mark.parametrize("train_norms", [False, True])
def test_nothing_frozen_learns_everywhere(train_norms: bool) -> None:
    network = tiny_network()
    frozen = Frozen(network, "0", train_norms=train_norms)
    before = state_of(network)

    learn(network, frozen)

    assert frozen.names == ()
    still = before.keys() - changed(before, state_of(network))
    assert all(is_statistic(name) for name in still)
    assert bool(still) != train_norms


def test_everything_frozen_learns_nowhere() -> None:
    network = tiny_network()
    frozen = Frozen(network, "1", train_norms=True)
    before = state_of(network)

    frozen.train()
    network(torch.rand(4, 3, 8, 8))

    assert list(frozen.names) == TINY_STAGES
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not changed(before, state_of(network))


def test_dropout_acts_only_where_something_learns() -> None:
    def block() -> nn.Module:
        return nn.Sequential(OrderedDict(part=nn.Sequential(nn.Linear(4, 4), nn.Dropout())))

    network = nn.Sequential(OrderedDict(early=block(), late=block()))

    Frozen(network, "early", train_norms=False).train()

    assert [network.get_submodule(f"{name}.part.1").training for name in ("early", "late")] == [False, True]


def test_what_lies_before_the_first_stage_is_frozen_with_it() -> None:
    frozen, free = network_of("timm/test_vit"), network_of("timm/test_vit")

    Frozen(frozen, "0.2", train_norms=False)
    Frozen(free, "0", train_norms=False)

    for name in ("cls_token", "pos_embed"):
        assert not frozen.get_parameter(name).requires_grad
        assert free.get_parameter(name).requires_grad


Groups = list[dict[str, Any]]


def groups_of(network: nn.Module, head: nn.Module) -> Groups:
    return parameter_groups(network, head, head_lr=0.5, backbone_lr=0.1, layer_decay=0.8, weight_decay=0.02)


def group_of(groups: Groups, parameter: nn.Parameter) -> dict[str, Any]:
    (found,) = [group for group in groups if any(member is parameter for member in group["params"])]
    return found


@pytest.mark.parametrize("freeze", ["0", "0.5", "1"])
@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "mobilenet_v3_small"])
def test_every_parameter_that_learns_is_in_one_group_and_no_other_is(name: str, freeze: str) -> None:
    network, head = network_of(name), nn.Linear(4, 2)
    Frozen(network, freeze, train_norms=False)

    members = [parameter for group in groups_of(network, head) for parameter in group["params"]]

    learning = [p for module in (network, head) for p in module.parameters() if p.requires_grad]
    assert len(members) == len(learning)
    assert {id(member) for member in members} == {id(parameter) for parameter in learning}


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "mobilenet_v3_small"])
def test_biases_and_norms_are_not_decayed_and_all_else_is(name: str) -> None:
    network, head = network_of(name), nn.Linear(4, 2)
    groups = groups_of(network, head)

    for module in (*network.modules(), head):
        is_norm = "norm" in type(module).__name__.lower()
        for own_name, parameter in module.named_parameters(recurse=False):
            spared = is_norm or own_name == "bias" or parameter.ndim <= 1
            assert group_of(groups, parameter)["weight_decay"] == (0 if spared else 0.02)


def test_each_stage_learns_slower_than_the_one_after_it_and_the_head_at_its_own_rate() -> None:
    network = tiny_network()
    groups = groups_of(network, HEAD)

    rates = [{group_of(groups, p)["lr"] for p in stage.module.parameters()} for stage in stages(network)]

    expected = [0.1 * 0.8**depth for depth in reversed(range(len(TINY_STAGES)))]
    assert [rate for found in rates for rate in found] == pytest.approx(expected)
    assert {group_of(groups, parameter)["lr"] for parameter in HEAD.parameters()} == {0.5}
    assert all(group["peak"] == group["lr"] for group in groups)


def test_what_lies_outside_of_all_stages_learns_like_the_first_one() -> None:
    network = network_of("timm/test_vit")
    groups = groups_of(network, HEAD)

    first = next(iter(stages(network)[0].module.parameters()))
    rates = {group_of(groups, network.get_parameter(name))["lr"] for name in ("cls_token", "pos_embed")}
    assert rates == {group_of(groups, first)["lr"]} == {min(group["lr"] for group in groups)}


def test_freezing_does_not_change_the_rates_of_what_learns() -> None:
    free, frozen = tiny_network(), tiny_network()
    Frozen(frozen, "body", train_norms=False)

    rates = [
        [group_of(groups_of(network, HEAD), network.get_parameter(name))["lr"] for name in ("last.weight", "last.bias")]
        for network in (free, frozen)
    ]

    assert rates[0] == rates[1] == [pytest.approx(0.08)] * 2
