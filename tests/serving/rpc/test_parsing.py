import json

import numpy as np
import pytest

from regraft.model.card import ClassMetrics, Metrics, ModelCard, parse_card
from regraft.v1 import retraining_pb2 as pb
from serving.rpc.parsing import MOST_ANSWER_BYTES, as_many_as_fit, card_json
from tests.tiny import tiny_backbone, tiny_card, tiny_head

TAKEN_BYTES = 4 * 2**20
"""By every client of gRPC."""


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
    few = ("red", "green", "blue")
    told = {"labels": labels, "metrics": metrics, "reference": None}
    return tiny_card(tiny_backbone(), tiny_head(few), few, "many").model_copy(update=told)


def test_a_card_of_few_classes_is_sent_as_it_is() -> None:
    card = card_of(100)

    assert parse_card(card_json(card)) == card


def test_of_1_200_classes_what_was_confused_is_sent_as_cells_and_every_client_takes_it() -> None:
    sent = card_json(card_of(1_200))

    assert len(sent.encode()) < TAKEN_BYTES / 2
    found = json.loads(sent)["metrics"]["confusion"]
    assert found["classes"] == 1_200
    assert {tuple(cell) for cell in found["cells"]} == {*((i, i, 7) for i in range(1_200)), (0, 1_199, 2)}


@pytest.mark.parametrize(("sizes", "fitting"), [([], 0), ([10, 10], 2), ([1, 2 * MOST_ANSWER_BYTES, 1], 1)])
def test_an_answer_holds_as_many_messages_as_fit(sizes: list[int], fitting: int) -> None:
    jobs = [pb.RetrainJob(message="x" * size) for size in sizes]

    assert as_many_as_fit(jobs) == jobs[:fitting]
    assert as_many_as_fit(iter(jobs[1:2])) == jobs[1:2], "one there is in any case"
