import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from regraft.client.model_answers import Answering, ModelAnswers
from regraft.errors import DatasetError
from regraft.label_rules import image_hash
from tests.page import Page
from tests.tiny import picture
from training.data.dataset import LabelledImage
from training.evaluation.evaluate import EvaluationSet, ModelRun, evaluate, evaluate_models, evaluate_pair
from training.evaluation.report.evaluation_page import page

RED_GREEN = ("red", "green")


def pictures_of(labels: Sequence[str], folder: Path = Path("photos")) -> EvaluationSet:
    """Return pictures of these labels, ``00`` and on, each a group of its own."""
    keys = [f"{number:064}" for number in range(len(labels))]
    images = {
        key: LabelledImage(folder / f"{number}.png", label, is_holdout=False, sha256=key, group=number)
        for number, (key, label) in enumerate(zip(keys, labels, strict=True))
    }
    return EvaluationSet(images, {key: f"{number}.png" for number, key in enumerate(keys)}, "photos", "all of it", ())


def answers_to(
    pictures: EvaluationSet,
    answers: Sequence[str],
    labels: tuple[str, ...] = RED_GREEN,
    *,
    sure: float = 0.75,
    novel: Sequence[int] = (),
    failures: Mapping[str, str] | None = None,
    target_error: float | None = None,
    abstains_up_to: float = -1.0,
) -> ModelAnswers:
    """Return answers that give ``sure`` to each label named, and the rest to the others alike."""
    by = Answering("colours", 3, labels, 0.5, target_error, abstains_up_to)
    probabilities = np.full((len(answers), len(labels)), (1 - sure) / (len(labels) - 1), np.float32)
    probabilities[np.arange(len(answers)), [labels.index(answer) for answer in answers]] = sure
    novelty = np.array([0.9 if row in novel else 0.1 for row in range(len(answers))], np.float32)
    ids = tuple(key for key in pictures.images if key not in (failures or {}))
    return ModelAnswers(by, ids, probabilities, novelty, dict(failures or {}))


def asked(answers: ModelAnswers, trained_on: Sequence[str] | None = None) -> ModelRun:
    return ModelRun("colours:3", answers, 2.0, trained_on)


def test_accuracy_interval_and_the_figures_of_each_class_are_those_of_the_answers() -> None:
    pictures = pictures_of(["red"] * 6 + ["green"] * 4)

    found = evaluate(asked(answers_to(pictures, ["red"] * 8 + ["green"] * 2)), pictures)

    interval = binomtest(8, 10).proportion_ci(method="wilson")
    assert found.metrics.accuracy == pytest.approx(0.8)
    assert found.metrics.accuracy_interval == pytest.approx((interval.low, interval.high))
    assert found.metrics.confusion == ((6, 0), (2, 2))
    assert [(entry.precision, entry.recall) for entry in found.metrics.per_class] == [(0.75, 1.0), (1.0, 0.5)]
    assert found.reliability.ece == pytest.approx(0.05)
    assert found.images_per_s == pytest.approx(5.0)


def test_the_worst_mistakes_come_first_with_what_was_answered() -> None:
    pictures = pictures_of(["red", "green", "green"])
    answers = answers_to(pictures, ["red", "red", "red"])
    answers.probabilities[2] = (0.99, 0.01)

    found = evaluate(asked(answers), pictures)

    assert [(each.file, each.label, each.answer) for each in found.top_losses] == [
        ("2.png", "green", "red"),
        ("1.png", "green", "red"),
    ]
    assert found.top_losses[0].label_probability == pytest.approx(0.01)


def test_labels_that_the_model_does_not_know_are_counted_and_listed_and_count_nowhere_else() -> None:
    pictures = pictures_of(["red", "grey", "green", "grey", "mauve"])

    found = evaluate(asked(answers_to(pictures, ["red", "red", "red", "green", "red"], novel=[1, 3])), pictures)

    assert found.metrics.images == 2
    assert [(each.label, each.novel.count, each.novel.images) for each in found.unknown] == [
        ("grey", 2, 2),
        ("mauve", 0, 1),
    ]
    assert (found.novel.count, found.novel.images) == (0, 2)


def test_data_without_a_label_that_the_model_knows_is_refused_with_both_sides_labels() -> None:
    pictures = pictures_of(["mauve", "grey"])

    with pytest.raises(
        DatasetError, match=r"it has red, green, the data has grey, mauve; are the class folders called"
    ):
        evaluate(asked(answers_to(pictures, ["red", "red"])), pictures)


def test_pictures_that_were_trained_on_are_counted_and_the_others_measured_by_themselves() -> None:
    pictures = pictures_of(["red", "red", "green", "green"])
    trained = [key for key, image in pictures.images.items() if image.label == "red"]

    found = evaluate(asked(answers_to(pictures, ["red", "red", "red", "green"]), trained), pictures)

    assert found.trained_on == 2
    assert found.unseen is not None
    assert (found.unseen.images, found.unseen.accuracy) == (2, 0.5)
    assert found.metrics.accuracy == 0.75


def test_it_is_not_known_whether_a_servers_model_was_trained_on_a_picture() -> None:
    pictures = pictures_of(["red"])

    assert evaluate(asked(answers_to(pictures, ["red"])), pictures).trained_on is None


def test_what_a_target_error_declines_is_measured_against_its_promise() -> None:
    pictures = pictures_of(["red"] * 4)
    answers = answers_to(pictures, ["red", "red", "green", "green"], target_error=0.02, abstains_up_to=0.8)
    answers.probabilities[:3] = [(0.9, 0.1), (0.7, 0.3), (0.1, 0.9)]

    declined = evaluate(asked(answers), pictures).declined

    assert declined is not None
    assert (declined.answered.count, declined.answered.images) == (2, 4)
    assert (declined.wrong.count, declined.wrong.images) == (1, 2)
    assert declined.target_error == 0.02


def test_of_a_thousand_labels_those_are_shown_that_the_data_has_or_is_answered_with() -> None:
    labels = tuple(f"class {number}" for number in range(1000))
    pictures = pictures_of(["class 7", "class 900"])

    found = evaluate(asked(answers_to(pictures, ["class 7", "class 41"], labels)), pictures)

    assert [entry.label for entry in found.metrics.per_class] == ["class 7", "class 41", "class 900"]
    assert found.metrics.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 0))
    assert found.metrics.macro_f1 == pytest.approx(0.5)


def test_pictures_that_belong_together_make_the_interval_wider() -> None:
    pictures = pictures_of(["red"] * 20)
    alike = {
        key: LabelledImage(image.path, "red", is_holdout=False, sha256=key, group=row // 4)
        for row, (key, image) in enumerate(pictures.images.items())
    }
    grouped = EvaluationSet(alike, pictures.shown, "photos", "all of it", ())

    alone, together = (evaluate(asked(answers_to(each, ["red"] * 20)), each).metrics for each in (pictures, grouped))

    assert together.accuracy_interval[0] < alone.accuracy_interval[0]


def test_two_models_are_compared_picture_by_picture_with_mcnemars_exact_test() -> None:
    pictures = pictures_of(["red"] * 10 + ["green"] * 2)
    first = answers_to(pictures, ["green"] * 7 + ["red"] * 5)
    second = answers_to(pictures, ["red"] * 9 + ["green"] * 3)

    paired = evaluate_pair(first, second, pictures)

    assert (paired.only_first, paired.only_second, paired.agreed) == (1, 9, 2)
    assert paired.p_value == pytest.approx(binomtest(1, 10).pvalue)
    assert paired.accuracy == pytest.approx((3 / 12, 11 / 12))
    assert paired.differing_found == 10
    assert paired.gain > 2 * paired.gain_error


def test_of_pictures_answered_differently_those_come_first_that_one_of_the_two_gets_right() -> None:
    labels = ("red", "green", "blue")
    pictures = pictures_of(["red", "red", "red"])
    first = answers_to(pictures, ["green", "red", "red"], labels)
    second = answers_to(pictures, ["blue", "green", "red"], labels)

    paired = evaluate_pair(first, second, pictures)

    assert [(each.file, each.answers, each.right) for each in paired.differing] == [
        ("1.png", ("red", "green"), (True, False)),
        ("0.png", ("green", "blue"), (False, False)),
    ]


def test_models_of_different_labels_are_compared_where_both_know_the_label_and_both_answered() -> None:
    pictures = pictures_of(["red", "green", "blue", "red"])
    lost = next(iter(pictures.images))
    first = answers_to(pictures, ["red", "green", "red", "red"], ("green", "red"))
    second = answers_to(pictures, ["green", "blue", "red"], ("red", "green", "blue"), failures={lost: "is damaged"})

    paired = evaluate_pair(first, second, pictures)

    assert paired.images == 2  # not the blue one, nor the one that the second could not read
    assert (paired.only_first, paired.only_second) == (0, 0)
    assert paired.p_value == 1


def test_models_without_a_picture_in_common_are_refused() -> None:
    pictures = pictures_of(["red", "blue"])

    with pytest.raises(DatasetError, match="there is no picture that both models answered"):
        evaluate_pair(
            answers_to(pictures, ["red", "red"]), answers_to(pictures, ["blue", "blue"], ("blue", "mauve")), pictures
        )


@given(
    st.lists(st.tuples(st.sampled_from(RED_GREEN), st.sampled_from(RED_GREEN), st.sampled_from(RED_GREEN)), min_size=1)
)
def test_exchanging_the_models_exchanges_the_figures(rows: list[tuple[str, str, str]]) -> None:
    truth, one, other = (list(column) for column in zip(*rows, strict=True))
    pictures = pictures_of(truth)
    first, second = answers_to(pictures, one), answers_to(pictures, other)

    there, back = evaluate_pair(first, second, pictures), evaluate_pair(second, first, pictures)

    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert there.accuracy == back.accuracy[::-1]
    assert there.p_value == pytest.approx(back.p_value)
    assert there.gain == pytest.approx(-back.gain)
    assert there.agreed + there.differing_found == len(rows)


def on_disk(folder: Path, labels: Sequence[str]) -> EvaluationSet:
    """Return pictures whose files are there, named so that a page has to escape them."""
    pictures = pictures_of(labels, folder)
    for number, image in enumerate(pictures.images.values()):
        image.path.write_bytes(picture("red", number))
    return pictures


def test_the_page_has_the_parts_of_a_trainings_report_and_needs_no_other_file(tmp_path: Path) -> None:
    pictures = on_disk(tmp_path, ["red", "red", "green", "grey"])
    answers = answers_to(pictures, ["red", "red", "red", "red"], novel=[3], target_error=0.02, abstains_up_to=0.1)

    html = Page(page(evaluate_models(pictures, [asked(answers, [*pictures.images][:1])]), pictures))

    ids = {value for name, value in html.attributes if name == "id"}
    assert ids == {
        f"first-{part}" for part in ("result", "classes", "confusion", "calibration", "selective", "mistakes")
    } | {"left-out"}
    for said in (
        "66.7%",
        "1 of these pictures were trained on",
        "Labels that the model does not know",
        "grey",
        "Most confident mistakes",
    ):
        assert said in html.text
    images = [value for name, value in html.attributes if name == "src"]
    assert len(images) == 1
    assert all(value is not None and value.startswith("data:image/jpeg;base64,") for value in images)
    assert "script" not in html.tags
    links = {value for name, value in html.attributes if name == "href"}
    assert links == {f"#{place}" for place in ids}


def test_the_page_of_two_models_shows_where_they_differ(tmp_path: Path) -> None:
    pictures = on_disk(tmp_path, ["red", "red", "green"])
    first, second = answers_to(pictures, ["red", "red", "red"]), answers_to(pictures, ["red", "green", "green"])

    html = Page(page(evaluate_models(pictures, [asked(first), ModelRun("other:1", second, 1.0)]), pictures))

    assert "McNemar" in html.text
    assert "colours:3 and other:1" in html.text
    assert {"paired", "first-result", "second-result"} <= {value for name, value in html.attributes if name == "id"}


def test_whatever_a_label_or_a_file_is_called_the_page_shows_it_as_text(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    pictures = on_disk(tmp_path, [evil, evil])
    named = EvaluationSet(pictures.images, dict.fromkeys(pictures.images, evil), evil, evil, ((evil, evil),))

    html = Page(page(evaluate_models(named, [asked(answers_to(named, ["green", evil], (evil, "green")))]), named))

    assert "script" not in html.tags
    assert evil in html.text


def test_the_result_is_plain_json() -> None:
    pictures = pictures_of(["red", "green"])
    lost = image_hash(b"lost")
    answers = answers_to(pictures, ["red", "red"])
    answers.failures[lost] = "is damaged"
    named = EvaluationSet(
        pictures.images, {**pictures.shown, lost: "lost.png"}, "photos", "all of it", (("b.txt", "no picture"),)
    )

    result = json.loads(json.dumps(evaluate_models(named, [asked(answers), asked(answers)]).to_dict(), allow_nan=False))

    assert result["left_out"] == [
        {"file": "b.txt", "reason": "no picture"},
        {"file": "lost.png", "reason": "is damaged"},
    ]
    assert [each["metrics"]["accuracy"] for each in result["models"]] == [0.5, 0.5]
    assert result["paired"]["p_value"] == 1
