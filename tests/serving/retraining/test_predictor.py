from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from regraft.label_rules import image_hash
from regraft.model.fitted_pictures import FittedPictures
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.listing import Order
from regraft.stores.labelling.predictions import UNKNOWN_LABEL, Prediction, Unpredicted
from regraft.stores.labels import NewExample
from regraft.stores.models import ModelStore
from serving.inference.registry import ModelRegistry
from serving.retraining.predictor import ExamplePredictor, predict, present_head
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines
from tests.tiny import picture, publish_tiny, tiny_backbone, tiny_features, tiny_head
from tests.waiting import asynchronous

LABELS = ("red", "green", "blue")


def todo_of(*colours: str, labels: tuple[str, ...]) -> Unpredicted:
    """Return a picture of each colour under another name."""
    features = tiny_features(tiny_backbone(), colours, pictures=1)
    by_colour = {features.labels[index]: row for row, index in enumerate(features.label_index)}
    rows = [by_colour[colour] for colour in colours]
    return Unpredicted(tuple(features.sha256[row] for row in rows), labels, features.embedding[rows])


def answers(
    todo: Unpredicted, labels: tuple[str, ...] = LABELS, fitted: FittedPictures | None = None
) -> list[Prediction]:
    return predict(tiny_head(LABELS), labels, todo, fitted or FittedPictures.none())


def test_a_wrong_label_is_doubted_and_suspected_and_a_right_one_is_not() -> None:
    right, wrong, new = answers(todo_of("red", "green", "blue", labels=("red", "blue", "sky")))

    assert (right.label, right.is_right, right.is_suspected) == ("red", True, False)
    assert right.doubt == pytest.approx(1 - right.probability)
    assert (wrong.label, wrong.is_right, wrong.is_suspected) == ("green", False, True)
    assert wrong.doubt > 0.9
    assert wrong.label_probability == pytest.approx(1 - wrong.doubt)
    assert (new.label_probability, new.doubt) == (None, UNKNOWN_LABEL), "nobody can say what it looks like"
    assert not new.is_suspected


def test_answers_of_labels_that_were_merged_are_added_up() -> None:
    red, green = answers(todo_of("red", "green", labels=("warm", "warm")), labels=("warm", "warm", "blue"))

    assert red.label == green.label == "warm"
    assert red.is_right
    assert red.probability > 0.99
    assert red.label_probability == red.probability


def test_a_picture_of_the_fit_is_judged_by_heads_that_had_not_seen_it() -> None:
    todo = todo_of("red", "green", labels=("red", "green"))
    order = np.argsort(np.array(todo.sha256))
    label_index = np.array([0, 1])[order]
    fitted = FittedPictures(
        np.array(todo.sha256, "S64")[order],
        LABELS,
        label_index,
        np.array([0.05, np.nan], np.float32)[order],
        np.array([2, -1])[order],
    )
    red, green = answers(todo, fitted=fitted)

    assert red.is_right, "the head itself has learned it"
    assert (red.is_unseen, red.is_suspected) == (True, True)
    assert red.doubt == pytest.approx(0.95)
    assert (green.is_unseen, green.is_suspected) == (False, False), "no such answer was kept of it"
    (relabelled, _) = answers(replace(todo, label=("green", "green")), fitted=fitted)
    assert not relabelled.is_unseen, "what was kept is of the label that it had then"


@dataclass
class Stage:
    store: ModelStore
    examples: ExamplesStore
    models: ModelRegistry
    predictor: ExamplePredictor

    def add(self, colour: str, label: str, number: int = 0) -> str:
        self.examples.add("colours", picture(colour, number), label)
        features = tiny_features(tiny_backbone(), (colour,), pictures=number + 1)
        sha256 = image_hash(picture(colour, number))
        vector = features.embedding[features.sha256.index(sha256)]
        self.examples.embeddings.put(self.models.get("colours").key, {sha256: vector})
        return sha256

    @property
    def key(self) -> str:
        return present_head(self.examples, self.models.get("colours")).key

    def listed(self) -> dict[str, str]:
        """The answers of the head that serves, by label."""
        page = self.examples.listing.page("colours", order=Order.LIKELY_WRONG, head=self.key, most=99)
        return {each.example.label: each.prediction.label for each in page if each.prediction}


@asynccontextmanager
async def stage(store: ModelStore, every_s: float = 3600) -> AsyncIterator[Stage]:
    metrics, threads = Metrics(), Threads()
    examples = ExamplesStore(store.root / ".examples")
    models = ModelRegistry(store, Engines(), max_queue=8, metrics=metrics, threads=threads)
    await models.refresh()
    try:
        yield Stage(store, examples, models, ExamplePredictor(models, examples, every_s))
    finally:
        models.close()
        threads.close()
        examples.close()


@asynchronous
async def test_examples_are_answered_by_the_head_that_serves(store: ModelStore) -> None:
    async with stage(store) as s:
        s.add("red", "red")
        s.add("green", "blue")
        await s.predictor.look()

        assert s.listed() == {"red": "red", "blue": "green"}
        assert s.examples.predictions.pending("colours", s.key) == 0


@asynchronous
async def test_after_a_swap_they_are_answered_anew_and_old_answers_go(store: ModelStore) -> None:
    async with stage(store) as s:
        s.add("red", "red")
        await s.predictor.look()
        before = s.key
        publish_tiny(store, labels=("red", "green", "blue", "grey"))
        await s.models.refresh()

        assert s.key != before
        assert s.examples.predictions.pending("colours", s.key) == 1
        await s.predictor.look()
        assert s.listed() == {"red": "red"}
        assert s.examples.predictions.pending("colours", before) == 1, "those of the former head are dropped"


@asynchronous
async def test_what_was_labelled_since_is_answered_when_the_predictor_is_woken_or_its_time_has_come(
    store: ModelStore,
) -> None:
    async with stage(store) as s:
        await s.predictor.look()
        s.add("red", "red")
        await s.predictor.look()
        assert s.listed() == {}
        s.predictor.wake("colours")
        await s.predictor.look()
        assert s.listed() == {"red": "red"}
    async with stage(store, every_s=0) as s:
        s.add("green", "green")
        await s.predictor.look()
        assert s.listed() == {"red": "red", "green": "green"}


@asynchronous
async def test_a_renamed_label_is_the_answer_under_its_new_name(store: ModelStore) -> None:
    async with stage(store, every_s=0) as s:
        s.add("red", "red")
        await s.predictor.look()
        before = s.key
        s.examples.label_changes.rename("colours", "red", "crimson")

        assert s.key != before, "tokens and answers of before hold no more"
        await s.predictor.look()
        assert s.listed() == {"crimson": "crimson"}


@asynchronous
async def test_more_examples_than_fit_in_one_piece_are_all_answered(store: ModelStore) -> None:
    async with stage(store) as s:
        new = [NewExample(b"%d" % number, "red") for number in range(600)]
        s.examples.labels.record("colours", new, "", 0)
        red = tiny_features(tiny_backbone(), ("red",), pictures=1).embedding[0]
        s.examples.embeddings.put(s.models.get("colours").key, {each.sha256: red for each in new[1:]})
        await s.predictor.look()

        assert s.examples.predictions.pending("colours", s.key) == 1, "the one without an embedding waits for it"
