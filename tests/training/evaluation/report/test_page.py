import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.gate_limits import GateLimits
from regraft.model.card import ClassMetrics, Metrics, ModelCard
from tests.page import Page
from tests.tiny import tiny_backbone, tiny_card, tiny_head
from training.evaluation.findings import (
    NOTHING_FOUND,
    Agreement,
    Bin,
    Calibration,
    ClassCurve,
    CrossValidation,
    Epoch,
    ExtraData,
    Findings,
    Forecast,
    Judged,
    LearningCurve,
    NoveltyCheck,
    Pair,
    Picture,
    Reliability,
    Selective,
    SharePoint,
    StartFinding,
    Tuning,
)
from training.evaluation.report.page import LeftOutFile, render, report_json
from training.gate.judge import Answers, judge

EVIL = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)>"
BACKBONE = tiny_backbone()
CARD = tiny_card(BACKBONE, tiny_head(("red", "green")), ("red", "green"))
METRICS = Metrics(
    images=10,
    accuracy=0.8,
    accuracy_interval=(0.49, 0.943),
    macro_f1=0.791,
    log_loss=0.456,
    per_class=(
        ClassMetrics(label="red", precision=0.75, recall=1, f1=0.857, support=6),
        ClassMetrics(label="green", precision=1, recall=0.5, f1=0.667, support=4),
    ),
    confusion=((6, 0), (2, 2)),
)
TUNING = Tuning(
    images=240,
    set_aside=48,
    epochs=7,
    train_accuracy=0.991,
    holdout_accuracy=0.933,
    head_rate=2e-3,
    backbone_rate=2e-4,
    first_rate=8e-5,
    frozen=4,
    optimizer="AdamW, weight decay 0.02",
    schedule="linear warm-up, then a half cosine",
    batch=32,
    augmentation="full, not mirrored",
    images_per_s=412.3,
    device="a GPU",
)
EVERYTHING = Findings(
    notes=("the backbone was frozen: few images",),
    calibration=Calibration(
        Reliability(0.125, (Bin(0, 0, 0), Bin(0.9, 0.7, 10)), 0.11, 0.04),
        Reliability(0.031, (Bin(0, 0, 0), Bin(0.8, 0.7, 10)), 0.0, 0.6),
    ),
    cross_validation=CrossValidation((0.81, 0.87), 0.84, (0.7, 0.92)),
    selective=Selective((0.5, 1.0), (0.97, 0.9), 120),
    top_losses=(Judged("a" * 64, "red/odd.jpg", "holdout", "red", "green", 0.913, 0.087),),
    label_errors=(Judged("b" * 64, "green/mixed.jpg", "train", "green", "red", 0.988, 0.012),),
    label_errors_found=1,
    duplicates=(
        Pair(Picture("c" * 64, "red/1.jpg", "train", "red"), Picture("d" * 64, "red/2.jpg", "holdout", "red"), 0.971),
    ),
    duplicates_found=1,
    duplicates_across=1,
    novelty=NoveltyCheck({"class means": 0.934, "Mahalanobis cosine": 0.951}, "Mahalanobis cosine", 0.512, 0.71, 0.052),
    extra=ExtraData("more_crayons", 312, 0.63, 0.801, 0.812, 0.9, 0.89),
    start=StartFinding({"red": "strawberry"}, 0.553, 0.25),
    epochs=(Epoch(1, 1.5, 1.6, 0.5, 1e-3, 20.0, 0.4), Epoch(2, 0.9, 1.2, 0.75, 1e-3, 22.0, 0.7)),
    tuning=TUNING,
    agreement=Agreement(8, 3.2e-6, 1.0),
    learning_curve=LearningCurve(
        240,
        (SharePoint(0.25, 60, 0.71, (0.65, 0.77)), SharePoint(1.0, 240, 0.84, (0.79, 0.88))),
        (Forecast(100, 0.862, (0.833, 0.887), 0.022),),
        (ClassCurve("green", 70, (SharePoint(1.0, 70, 0.66, (0.5, 0.8)),), (Forecast(100, 0.7, (0.6, 0.78), 0.04),)),),
        ("what 800 more labels bring is not told by 240",),
    ),
)
SECTIONS = {  # the id of a section, and the findings it is drawn from
    "calibration": "calibration",
    "selective": "selective",
    "mistakes": "top_losses",
    "labels": "label_errors",
    "duplicates": "duplicates",
    "novelty": "novelty",
    "folds": "cross_validation",
    "more-labels": "learning_curve",
    "extra": "extra",
    "start": "start",
    "epochs": "epochs",
}


def words(text: str) -> str:
    return " ".join(text.split())


def with_labels(*labels: str) -> ModelCard:
    """Return a card with metrics whose first and second classes are called so."""
    per_class = tuple(
        entry.model_copy(update={"label": label}) for entry, label in zip(METRICS.per_class, labels, strict=True)
    )
    return CARD.model_copy(
        update={"labels": labels, "metrics": METRICS.model_copy(update={"per_class": per_class})},
    )


def test_the_report_shows_what_was_measured() -> None:
    text = Page(render(with_labels("red", "green"), NOTHING_FOUND, [])).text

    for shown in ("80.0%", "10 holdout images", "49.0% to 94.3%", "0.791", "0.456", "0.857", "0.667"):
        assert shown in text


def test_a_new_label_that_is_doubted_is_shown_with_the_hash_that_it_can_be_put_right_by() -> None:
    hashed = hashlib.sha256(b"a picture").hexdigest()
    answers = np.eye(2, dtype=np.float32)
    verdict = judge(Answers(answers, answers, np.arange(2), ("red", "blue")), GateLimits())
    doubted = (Judged(hashed, "Mallory", "train", "blue", "red", 0.99, 0.01),)

    text = words(Page(render(CARD, Findings(verdict=verdict, doubted=doubted, doubted_found=1), [])).text)

    assert f"train: Mallory{hashed[:12]}" in text
    assert "regraft examples relabel HASH LABEL" in text


def test_the_report_shows_the_confusion_with_the_truth_in_rows() -> None:
    text = Page(render(with_labels("red", "green"), NOTHING_FOUND, [])).text

    confusion = text[text.index("Confusion") :]
    assert "red 6 green 2 2" in words(confusion)


def test_the_report_says_how_the_version_was_made() -> None:
    card = CARD.model_copy(
        update={"settings": {"c": 0.31, "split": "by hash"}, "parent_version": 41, "libraries": {"numpy": "9.9.9"}}
    )

    text = Page(render(card, NOTHING_FOUND, [])).text

    for shown in (
        card.name,
        card.head_digest,
        card.backbone.digest,
        card.data_digest,
        "0.31",
        "by hash",
        "41",
        "9.9.9",
    ):
        assert shown in text


def test_without_holdout_images_the_report_says_that_nothing_was_measured() -> None:
    page = Page(render(CARD, NOTHING_FOUND, []))

    assert "No holdout images: nothing was measured." in page.text
    assert "accuracy" not in page.text
    assert "Confusion" not in page.text


def test_files_that_were_left_out_are_listed_with_the_reason() -> None:
    left_out = [("cats/a.jpg", "the image is empty (0 bytes)"), ("stray.txt", "not inside a class folder")]

    text = Page(render(CARD, NOTHING_FOUND, left_out)).text

    for name, reason in left_out:
        assert f"{name} {reason}" in words(text)
    assert "No file was left out." not in text


def test_nothing_left_out_is_said_too() -> None:
    assert "No file was left out." in Page(render(CARD, NOTHING_FOUND, [])).text


EVIL_INPUTS: dict[str, tuple[ModelCard, list[LeftOutFile]]] = {
    "labels": (with_labels(EVIL, "green"), []),
    "file names": (CARD, [(EVIL, "empty")]),
    "reasons": (CARD, [("a.jpg", EVIL)]),
    "names of settings": (CARD.model_copy(update={"settings": {EVIL: 1}}), []),
    "settings": (CARD.model_copy(update={"settings": {"data": EVIL}}), []),
    "the backbone": (
        CARD.model_copy(update={"backbone": CARD.backbone.model_copy(update={"name": EVIL, "weights": EVIL})}),
        [],
    ),
    "the strategy": (CARD.model_copy(update={"strategy": EVIL}), []),
    "libraries": (CARD.model_copy(update={"libraries": {EVIL: EVIL}}), []),
    "the name": (CARD.model_copy(update={"name": EVIL}), []),
}


@pytest.mark.parametrize(("card", "left_out"), EVIL_INPUTS.values(), ids=EVIL_INPUTS)
def test_markup_from_outside_is_shown_and_never_obeyed(card: ModelCard, left_out: list[LeftOutFile]) -> None:
    page = Page(render(card, NOTHING_FOUND, left_out))

    assert EVIL in page.text
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


EVIL_PICTURE = Judged("e" * 64, EVIL, EVIL, EVIL, EVIL, 0.9, 0.1)
EVIL_FINDINGS: dict[str, Findings] = {
    "notes": Findings(notes=(EVIL,)),
    "mistakes": Findings(top_losses=(EVIL_PICTURE,)),
    "label errors": Findings(label_errors=(EVIL_PICTURE,)),
    "duplicates": Findings(duplicates=(Pair(EVIL_PICTURE, EVIL_PICTURE, 0.9),)),
    "methods of novelty": Findings(novelty=NoveltyCheck({EVIL: 0.9}, "class means", 0.5, 0.7, 0.05)),
    "the folder of extra data": Findings(extra=ExtraData(EVIL, 3, 1, 0.8, 0.9, None, None)),
    "weak classes": Findings(
        learning_curve=LearningCurve(
            20,
            (SharePoint(1.0, 20, 0.5, (0.4, 0.6)),),
            (),
            (ClassCurve(EVIL, 10, (SharePoint(1.0, 10, 0.5, (0.4, 0.6)),), (Forecast(50, 0.6, (0.5, 0.7), 0.1),)),),
        )
    ),
    "labels of the source": Findings(start=StartFinding({EVIL: EVIL}, 0.5, 0.2)),
}


@pytest.mark.parametrize("findings", EVIL_FINDINGS.values(), ids=EVIL_FINDINGS)
def test_markup_in_findings_is_shown_and_never_obeyed(findings: Findings) -> None:
    page = Page(render(with_labels("red", "green"), findings, []))

    assert EVIL in page.text
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_report_is_one_page_without_scripts_or_outside_files() -> None:
    thumbnails = {letter * 64: b"\xff\xd8 a picture" for letter in "abcd"}
    html = render(with_labels("red", "green"), EVERYTHING, [("a.jpg", "empty")], thumbnails)
    page = Page(html)

    assert html.lower().startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert {value.split(",")[0] for name, value in page.attributes if name == "src" and value} == {
        "data:image/jpeg;base64"
    }
    assert all(value.startswith("#") for name, value in page.attributes if name == "href" and value)
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert ("charset", "utf-8") in page.attributes


def test_every_link_leads_to_a_section() -> None:
    page = Page(render(with_labels("red", "green"), EVERYTHING, []))

    targets = {value for name, value in page.attributes if name == "id" and value}
    links = [value for name, value in page.attributes if name == "href" and value]
    assert len(links) == 15
    assert {link.removeprefix("#") for link in links} <= targets


def test_the_report_shows_everything_that_was_found() -> None:
    text = words(Page(render(with_labels("red", "green"), EVERYTHING, [])).text)

    for shown in (
        "the backbone was frozen: few images",
        "calibration error 11.0%",
        "calibration error 0.0%",
        "84.0% right, 95% interval 70.0% to 92.0%",
        "1 81.0% 2 87.0%",
        "red 8.7%→ green 91.3%",
        "red/odd.jpg",
        "green 1.2%→ red 98.8%",
        "green/mixed.jpg",
        "likeness 0.971 across the splits",
        "red/1.jpg",
        "red/2.jpg",
        "class means 0.934",
        "Mahalanobis cosine in the file 0.951",
        "0.5120",
        "71.0%",
        "5.2%",
        "all classes, 84.0% now 100 86.2% 83.3% to 88.7% +2.2 points",
        "green, 66.0% of 70 images now 100 70.0% 60.0% to 78.0% +4.0 points",
        "what 800 more labels bring is not told by 240.",
        "312 images of more_crayons joined, mean weight 0.63",
        "cross-validation 80.1% 81.2% +1.1 points",
        "holdout 90.0% 89.0% -1.0 points",
        "55.3% right (always the commonest class: 25.0%)",
        "red strawberry",
        "2 epochs, 42 s",
        "agree on 100.0% of 8 pictures; no logit differs by more than 3.2e-06",
    ):
        assert shown in text


@pytest.mark.parametrize(("section", "field"), SECTIONS.items(), ids=SECTIONS)
def test_a_section_without_data_is_left_out(section: str, field: str) -> None:
    def sections(findings: Findings) -> set[str | None]:
        page = Page(render(with_labels("red", "green"), findings, []))
        return {value for name, value in page.attributes if name == "id"}

    without = replace(EVERYTHING, **{field: getattr(NOTHING_FOUND, field)})

    assert sections(EVERYTHING) - sections(without) == {section}


def test_a_picture_is_shown_where_it_is_at_hand() -> None:
    page = Page(render(with_labels("red", "green"), EVERYTHING, [], {"a" * 64: b"small"}))

    assert [value for name, value in page.attributes if name == "src"] == ["data:image/jpeg;base64,c21hbGw="]
    assert page.text.count("no picture") == 3


def test_where_the_model_looked_is_shown_beside_the_mistake() -> None:
    hashed = "a" * 64
    page = Page(render(with_labels("red", "green"), EVERYTHING, [], {hashed: b"small"}, {hashed: b"looked"}))

    assert [value for name, value in page.attributes if name == "src"] == [
        "data:image/jpeg;base64,c21hbGw=",
        "data:image/jpeg;base64,bG9va2Vk",
    ]
    assert "where the model looked" in page.text
    assert words(page.text).count("red/odd.jpg") == 1


def test_without_a_look_nothing_is_said_of_one() -> None:
    assert "looked" not in Page(render(with_labels("red", "green"), EVERYTHING, [])).text


def test_a_class_is_shown_with_its_training_images_and_its_right_answers() -> None:
    counts = Findings(train_images={"red": 31, "green": 17})

    text = words(Page(render(with_labels("red", "green"), counts, [])).text)

    assert "red 0.750 1.000 0.857 6 of 6 31" in text
    assert "green 1.000 0.500 0.667 2 of 4 17" in text


def test_training_images_of_each_class_are_shown_without_holdout_too() -> None:
    text = words(Page(render(CARD, Findings(train_images={"red": 31, "green": 17}), [])).text)

    assert "class training images red 31 green 17" in text


def test_the_report_says_what_a_fine_tuning_did() -> None:
    text = words(Page(render(with_labels("red", "green"), EVERYTHING, [])).text)

    for shown in (
        "accuracy on training images 99.1%",
        "accuracy on holdout images 93.3%",
        "240 learned from; 48 set aside",
        "7, batches of 32",
        "learning rate of the head 0.002",
        "8e-05 at its first stage that learns to 0.0002 at its last; 4 stages frozen",
        "AdamW, weight decay 0.02",
        "linear warm-up, then a half cosine",
        "full, not mirrored",
        "images a second 412 on a GPU",
    ):
        assert shown in text


def test_a_frozen_backbone_has_no_rate_and_no_holdout_no_accuracy() -> None:
    frozen = replace(EVERYTHING, tuning=replace(TUNING, first_rate=None, holdout_accuracy=None))

    text = words(Page(render(with_labels("red", "green"), frozen, [])).text)

    assert "learning rate of the backbone 0: it is frozen" in text
    assert "accuracy on holdout images none were held out" in text


def test_the_curves_show_accuracy_on_training_and_tuning_images() -> None:
    html = render(with_labels("red", "green"), EVERYTHING, [])

    accuracy = html[html.index('aria-label="Accuracy by epoch"') :]
    accuracy = accuracy[: accuracy.index("</svg>")]
    assert accuracy.count("<polyline") == 2
    assert ">training</text>" in accuracy
    assert ">tuning</text>" in accuracy


def test_pairs_under_two_labels_are_marked() -> None:
    pair = Pair(Picture("a", "1.jpg", "train", "red"), Picture("b", "2.jpg", "train", "green"), 0.95)

    text = Page(render(CARD, Findings(duplicates=(pair,)), [])).text

    assert "two labels" in text
    assert "across the splits" not in text


def test_what_the_lists_leave_out_is_counted() -> None:
    findings = replace(EVERYTHING, label_errors_found=70, duplicates_found=90)

    text = words(Page(render(CARD, findings, [])).text)

    assert "The first 1 of 70." in text
    assert "The first 1 of 90." in text


def test_the_verdict_names_the_most_frequent_mistake_and_the_weakest_class() -> None:
    text = Page(render(with_labels("red", "green"), NOTHING_FOUND, [])).text

    assert "2 of 10 answers were wrong, most often green taken for red (2)." in text
    assert "The weakest class is green, F1 0.67." in text
    assert "More holdout images would measure it better." in text


def test_the_verdict_warns_of_probabilities_that_mean_little() -> None:
    def warned(unbiased: float, p_value: float) -> bool:
        part = Reliability(0.4, (Bin(1, 0.6, 5),), unbiased, p_value)
        page = Page(render(with_labels("red", "green"), Findings(calibration=Calibration(part, part)), []))
        return "not to be taken at their word" in page.text

    assert warned(0.4, 0.01)
    assert not warned(0.4, 0.2)  # chance does as much
    assert not warned(0.01, 0.001)  # surely off, by nothing to speak of
    assert "not to be taken at their word" not in Page(render(with_labels("red", "green"), EVERYTHING, [])).text


def test_many_classes_are_folded_and_none_is_lost() -> None:
    labels = tuple(f"class {index}" for index in range(130))
    counts = tuple(tuple(int(row == column) for column in range(130)) for row in range(130))
    per_class = tuple(ClassMetrics(label=label, precision=1, recall=1, f1=1, support=1) for label in labels)
    metrics = METRICS.model_copy(update={"per_class": per_class, "confusion": counts})

    page = Page(render(CARD.model_copy(update={"labels": labels, "metrics": metrics}), NOTHING_FOUND, []))

    assert "details" in page.tags
    assert "the other 110 classes" in page.text
    assert "Only the 100 classes with the most mistakes are drawn; 30 are not." in page.text
    assert all(label in page.text for label in labels)


def test_a_class_without_holdout_images_is_said_to_have_none() -> None:
    per_class = (METRICS.per_class[0], ClassMetrics(label="green", precision=0, recall=0, f1=0, support=0))
    metrics = METRICS.model_copy(update={"per_class": per_class})

    text = words(Page(render(CARD.model_copy(update={"metrics": metrics}), NOTHING_FOUND, [])).text)

    assert "green no holdout images 0 of 0" in text
    assert "The weakest class is green" not in text


def test_a_training_that_diverged_can_still_be_reported() -> None:
    diverged = Findings(epochs=(Epoch(1, math.nan, math.inf, 0.1, 1e-3, 1.0),))

    render(CARD, diverged, [])
    report = json.loads(report_json(CARD, diverged, []))

    assert report["findings"]["epochs"][0]["train_loss"] is None
    assert report["findings"]["epochs"][0]["tune_accuracy"] == 0.1


def test_the_report_for_machines_holds_card_findings_and_what_was_left_out() -> None:
    report = json.loads(report_json(CARD, EVERYTHING, [("caf\udce9.jpg", "empty")]))

    assert report["card"] == json.loads(CARD.to_json())
    assert report["findings"]["duplicates"][0]["second"] == {
        "sha256": "d" * 64,
        "file": "red/2.jpg",
        "split": "holdout",
        "label": "red",
    }
    assert report["findings"]["cross_validation"]["accuracy_interval"] == [0.7, 0.92]
    assert report["left_out"] == [{"file": "caf\udce9.jpg", "reason": "empty"}]
    assert report_json(CARD, EVERYTHING, [("caf\udce9.jpg", "empty")]).isascii()


@settings(max_examples=60)
@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
)
def test_any_label_and_any_file_name_can_be_read_in_the_report_and_add_no_tag(label: str, file: str) -> None:
    plain = Page(render(with_labels("a", "b"), NOTHING_FOUND, [("c", "d")]))

    page = Page(render(with_labels(label, label + "2"), NOTHING_FOUND, [(file, "d")]))

    assert page.tags == plain.tags
    assert label in page.text
    assert file in page.text
