from tests.training.convolutions import colour_crops, conv_backbone
from training.quantisation.quantise import quantise
from training.quantisation.sensitivity import errors_of_layers

CROPS = colour_crops(4)


def errors(loud: float) -> dict[str, float]:
    backbone = conv_backbone(loud=loud).SerializeToString()
    return errors_of_layers(backbone, quantise(backbone, CROPS, cpu="x86-vnni"), CROPS)


def test_each_layer_is_named_with_what_it_alone_adds_the_worst_first() -> None:
    found = errors(loud=1.0)

    assert set(found) == {"layer 0", "layer 2", "layer 4"}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert 0 < max(found.values()) < 0.05


def test_layers_that_are_given_one_loud_channel_are_the_worst() -> None:
    found = errors(loud=1e5)

    assert found["layer 0"] < 0.05  # it is given the picture
    assert min(found["layer 2"], found["layer 4"]) > 10 * found["layer 0"]


def test_every_layer_is_told() -> None:
    backbone = conv_backbone().SerializeToString()
    told: list[tuple[str, int, int]] = []

    errors_of_layers(backbone, quantise(backbone, CROPS, cpu="x86-vnni"), CROPS, lambda *step: told.append(step))

    assert told == [("layers", done, 3) for done in range(4)]
