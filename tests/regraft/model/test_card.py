import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import ArtifactError
from regraft.image.spec import ImageSpec
from regraft.model.card import SCHEMA_VERSION, BackboneCard, ClassMetrics, Metrics, ModelCard, parse_card
from tests.tiny import tiny_backbone, tiny_card, tiny_head

METRICS = Metrics(
    images=10,
    accuracy=0.9,
    accuracy_interval=(0.6, 0.98),
    macro_f1=0.89,
    log_loss=0.3,
    per_class=(
        ClassMetrics(label="red", precision=0.8, recall=1.0, f1=0.89, support=4),
        ClassMetrics(label="green", precision=1.0, recall=0.83, f1=0.91, support=6),
    ),
    confusion=((4, 0), (1, 5)),
)
LABELS = ("red", "green")
CARD = tiny_card(tiny_backbone(), tiny_head(LABELS), LABELS).model_copy(update={"metrics": METRICS})

TAKEN_BYTES = 4 * 2**20
"""By every client of gRPC."""

some_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shares = st.floats(0, 1)
finite = st.floats(allow_nan=False, allow_infinity=False)  # JSON has no other numbers
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | some_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(some_text, inner, max_size=3),
    max_leaves=6,
)


def fields() -> dict[str, Any]:
    """Return the card as the JSON object that its file holds, to be damaged."""
    parsed: dict[str, Any] = json.loads(CARD.to_json())
    return parsed


def test_a_card_comes_back_from_json_as_it_was() -> None:
    assert parse_card(CARD.to_json()) == CARD


@settings(max_examples=100)
@given(
    labels=st.lists(some_text, min_size=2, max_size=6, unique=True),
    temperature=st.floats(0, exclude_min=True, allow_infinity=False),
    method=st.sampled_from(["class means", "Mahalanobis cosine"]),
    threshold=st.floats(0, 2),
    chosen=st.dictionaries(some_text, json_values, max_size=3),
    seed=st.integers(),
    parent=st.none() | st.integers(1),
    accuracy=shares,
    log_loss=st.floats(0, allow_infinity=False),
)
def test_any_card_comes_back_from_json_as_it_was(
    labels: list[str],
    temperature: float,
    method: str,
    threshold: float,
    chosen: dict[str, Any],
    seed: int,
    parent: int | None,
    accuracy: float,
    log_loss: float,
) -> None:
    card = CARD.model_copy(
        update={
            "labels": tuple(labels),
            "temperature": temperature,
            "novelty_method": method,
            "novelty_threshold": threshold,
            "settings": chosen,
            "seed": seed,
            "parent_version": parent,
            "metrics": METRICS.model_copy(update={"accuracy": accuracy, "log_loss": log_loss}),
        }
    )

    again = parse_card(card.to_json())

    assert again == card
    assert list(again.labels) == labels  # the order of the probabilities


def test_the_json_of_a_card_has_sorted_keys_and_readable_letters() -> None:
    text = CARD.model_copy(update={"labels": ("Käfer", "蜂")}).to_json()

    assert "Käfer" in text
    assert "蜂" in text
    assert list(json.loads(text)) == sorted(json.loads(text))


@pytest.mark.parametrize("field", ["temperature", "log_loss"])
def test_a_card_is_json_for_every_reader_even_where_a_number_would_be_infinite(field: str) -> None:
    damaged = fields()
    (damaged if field in damaged else damaged["metrics"])[field] = float("inf")  # one sure and wrong answer is enough

    try:
        card = ModelCard.model_validate(damaged)
    except ValueError:
        return  # refused before it is written: fine as well

    assert "Infinity" not in card.to_json()


YOUNGER = {"reference", "abstention", "choice", "recipe", "labels_as_of"}
"""Fields that cards of before do not have."""


@pytest.mark.parametrize("field", sorted(ModelCard.model_fields.keys() - YOUNGER))
def test_a_field_that_is_missing_is_named(field: str) -> None:
    damaged = fields()
    del damaged[field]

    with pytest.raises(ArtifactError, match=f"card: field '{field}': Field required"):
        parse_card(json.dumps(damaged))


@pytest.mark.parametrize("field", sorted(BackboneCard.model_fields.keys() - {"precision", "sources", "state"}))
def test_a_field_that_is_missing_of_the_backbone_is_named(field: str) -> None:
    damaged = fields()
    del damaged["backbone"][field]

    with pytest.raises(ArtifactError, match=rf"card: field 'backbone\.{field}': Field required"):
        parse_card(json.dumps(damaged))


def test_a_card_from_before_there_was_a_choice_of_precision_is_fp32() -> None:
    older = fields()
    del older["backbone"]["precision"]

    assert parse_card(json.dumps(older)).backbone.precision == "fp32"


def test_a_reference_of_a_label_that_the_card_does_not_have_is_refused() -> None:
    damaged = fields()
    damaged["reference"] = {
        "source": "holdout",
        "images": 20,
        "distance": [0.1],
        "confidence": [0.9],
        "probabilities": {"no such label": [0.5]},
    }

    with pytest.raises(ArtifactError, match=r"reference\.probabilities: 'no such label' is none of the labels"):
        parse_card(json.dumps(damaged))


def test_a_card_from_before_there_was_a_recipe_has_none_and_one_that_has_keeps_its_types() -> None:
    older = fields()
    del older["recipe"]
    recipe = {"lr": 1.0, "batch": 32, "mirror": True, "frozen_up_to": None, "optimizer": "sgd"}

    assert parse_card(json.dumps(older)).recipe == {}
    kept = parse_card(parse_card(json.dumps({**older, "recipe": recipe})).to_json()).recipe
    assert {name: (type(value), value) for name, value in kept.items()} == {
        name: (type(value), value) for name, value in recipe.items()
    }


def test_a_card_from_before_there_was_a_reference_has_none() -> None:
    older = fields()
    del older["reference"]

    assert parse_card(json.dumps(older)).reference is None


def test_a_precision_that_nobody_knows_is_refused() -> None:
    damaged = fields()
    damaged["backbone"]["precision"] = "int3"

    with pytest.raises(ArtifactError, match=r"card: field 'backbone\.precision'"):
        parse_card(json.dumps(damaged))


@pytest.mark.parametrize("field", ["resize", "resize_px", "crop_px", "interpolation", "rule_version"])
def test_a_field_that_is_missing_of_the_image_spec_is_named_and_not_filled_in(field: str) -> None:
    damaged = fields()
    del damaged["image"][field]

    with pytest.raises(ArtifactError, match=rf"image\.{field}"):
        parse_card(json.dumps(damaged))


@pytest.mark.parametrize("field", Metrics.model_fields)
def test_a_field_that_is_missing_of_the_metrics_is_named(field: str) -> None:
    damaged = fields()
    del damaged["metrics"][field]

    with pytest.raises(ArtifactError, match=rf"card: field 'metrics\.{field}': Field required"):
        parse_card(json.dumps(damaged))


@pytest.mark.parametrize("field", ClassMetrics.model_fields)
def test_a_field_that_is_missing_of_one_class_is_named_with_its_place(field: str) -> None:
    damaged = fields()
    del damaged["metrics"]["per_class"][1][field]

    with pytest.raises(ArtifactError, match=rf"card: field 'metrics\.per_class\.1\.{field}': Field required"):
        parse_card(json.dumps(damaged))


@pytest.mark.parametrize("path", [[], ["backbone"], ["image"], ["metrics"], ["metrics", "per_class", 0]], ids=str)
def test_a_field_that_no_card_has_is_refused_by_name(path: list[str | int]) -> None:
    damaged = fields()
    part: Any = damaged
    for step in path:
        part = part[step]
    part["surprise"] = 1

    with pytest.raises(ArtifactError, match="surprise"):
        parse_card(json.dumps(damaged))


@pytest.mark.parametrize(
    "schema", [SCHEMA_VERSION + 1, 999, str(SCHEMA_VERSION + 1), float(SCHEMA_VERSION + 1)], ids=repr
)
def test_a_card_of_a_newer_schema_is_refused(schema: float | str) -> None:
    damaged = fields() | {"schema_version": schema}

    with pytest.raises(ArtifactError, match="schema"):
        parse_card(json.dumps(damaged))


def test_a_newer_schema_is_said_even_where_its_fields_are_strange() -> None:
    with pytest.raises(ArtifactError, match=f"schema {SCHEMA_VERSION + 1}, .* reads up to {SCHEMA_VERSION}: upgrade"):
        parse_card(json.dumps({"schema_version": SCHEMA_VERSION + 1, "tomorrow": True}))


# Columns: what is done to the card's fields, and what the complaint must name.
WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "the same label twice": (lambda card: card.update(labels=["a", "b", "a"]), "labels: the same label twice"),
    "one label": (lambda card: card.update(labels=["a"]), "'labels'"),
    "no labels": (lambda card: card.update(labels=[]), "'labels'"),
    "labels that are one text": (lambda card: card.update(labels="ab"), "'labels'"),
    "a label that is a number": (lambda card: card.update(labels=["a", 1]), "'labels.1'"),
    "no schema": (lambda card: card.update(schema_version=None), "'schema_version'"),
    "a digest of another length": (lambda card: card["backbone"].update(digest="ab"), "'backbone.digest'"),
    "a digest in capitals": (lambda card: card.update(head_digest="A" * 64), "'head_digest'"),
    "embeddings of nothing": (lambda card: card.update(embedding_size=0), "'embedding_size'"),
    "a temperature of 0": (lambda card: card.update(temperature=0), "'temperature'"),
    "a way to measure novelty that nobody knows": (
        lambda card: card.update(novelty_method="magic"),
        "'novelty_method'",
    ),
    "a negative threshold": (lambda card: card.update(novelty_threshold=-0.1), "'novelty_threshold'"),
    "a threshold above 2": (lambda card: card.update(novelty_threshold=2.1), "'novelty_threshold'"),
    "a threshold that is no number": (lambda card: card.update(novelty_threshold=float("nan")), "'novelty_threshold'"),
    "an accuracy above 1": (lambda card: card["metrics"].update(accuracy=1.1), "'metrics.accuracy'"),
    "a negative number of images": (lambda card: card.update(train_images=-1), "'train_images'"),
    "a crop larger than the picture": (lambda card: card["image"].update(crop_px=9), "crop_px"),
    "an unknown resize rule": (lambda card: card["image"].update(resize="stretch"), "image"),
    "another image rule": (lambda card: card["image"].update(rule_version=1), "image rule 1"),
}


@pytest.mark.parametrize(("damage", "named"), WRONG.values(), ids=WRONG.keys())
def test_a_value_that_makes_no_sense_is_refused_by_name(damage: Callable[[dict[str, Any]], object], named: str) -> None:
    damaged = fields()
    damage(damaged)

    with pytest.raises(ArtifactError) as caught:
        parse_card(json.dumps(damaged))

    assert named in str(caught.value)


@pytest.mark.parametrize("text", ["", "labels: red", "{", '{"labels": [}', "\0"], ids=lambda text: repr(text[:12]))
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="card: not JSON"):
        parse_card(text)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"card"', "[{}]"])
def test_json_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="card: not a JSON object"):
        parse_card(text)


@settings(max_examples=100)
@given(value=json_values, path=st.sampled_from([(field,) for field in ModelCard.model_fields] + [("image", "crop_px")]))
def test_whatever_stands_in_a_field_the_answer_is_a_card_or_an_artifact_error(
    value: object, path: tuple[str, ...]
) -> None:
    damaged = fields()
    part = damaged
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value

    try:
        card = parse_card(json.dumps(damaged))
    except ArtifactError:
        return
    assert parse_card(card.to_json()) == card


def test_metrics_may_be_absent_when_they_are_said_to_be() -> None:
    card = parse_card(json.dumps(fields() | {"metrics": None}))

    assert card.metrics is None


def test_the_image_spec_of_a_card_is_the_one_that_was_trained_with() -> None:
    spec = ImageSpec("pad", 300, 280, "lanczos")

    card = parse_card(CARD.model_copy(update={"image": spec}).to_json())

    assert card.image == spec
    assert card.image.digest() == spec.digest()


def card_of(classes: int) -> ModelCard:
    """Return a card whose classes were answered rightly seven times each, and one of them wrongly twice."""
    labels = tuple(f"a class with the number {number:05}" for number in range(classes))
    counts = 7 * np.eye(classes, dtype=int)
    counts[0, classes - 1] = 2
    metrics = Metrics(
        images=7 * classes + 2,
        accuracy=0.987654321,
        accuracy_interval=(0.987654321, 0.987654321),
        macro_f1=0.987654321,
        log_loss=0.1,
        per_class=tuple(
            ClassMetrics(label=label, precision=0.987654321, recall=0.987654321, f1=0.987654321, support=7)
            for label in labels
        ),
        confusion=tuple(map(tuple, counts.tolist())),
    )
    return CARD.model_copy(update={"labels": labels, "metrics": metrics, "reference": None})


def test_a_card_of_few_classes_is_sent_as_it_is() -> None:
    card = card_of(100)

    assert parse_card(card.to_sparse_json()) == card


def test_of_1_200_classes_what_was_confused_is_sent_as_cells_and_every_client_takes_it() -> None:
    sent = card_of(1_200).to_sparse_json()

    assert len(sent.encode()) < TAKEN_BYTES / 2
    found = json.loads(sent)["metrics"]["confusion"]
    assert found["classes"] == 1_200
    assert {tuple(cell) for cell in found["cells"]} == {*((i, i, 7) for i in range(1_200)), (0, 1_199, 2)}
