from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.card import ClassMetrics, Metrics, ModelCard
from tests.tiny import tiny_backbone, tiny_card, tiny_head
from training.report import LeftOutFile, render

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


class Page(HTMLParser):
    """What a browser makes of a page: its tags, its attributes and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def with_labels(*labels: str) -> ModelCard:
    """Return a card with metrics whose first and second classes are called so."""
    per_class = tuple(
        entry.model_copy(update={"label": label}) for entry, label in zip(METRICS.per_class, labels, strict=True)
    )
    return CARD.model_copy(
        update={"labels": labels, "metrics": METRICS.model_copy(update={"per_class": per_class})},
    )


def test_the_report_shows_what_was_measured() -> None:
    text = Page(render(with_labels("red", "green"), [])).text

    for shown in ("80.0%", "10 holdout images", "49.0% to 94.3%", "0.791", "0.456", "0.857", "0.667"):
        assert shown in text


def test_the_report_shows_the_confusion_with_the_truth_in_rows() -> None:
    text = Page(render(with_labels("red", "green"), [])).text

    confusion = text[text.index("Confusion") :]
    assert confusion.index("red60") < confusion.index("green22")


def test_the_report_says_how_the_version_was_made() -> None:
    card = CARD.model_copy(
        update={"settings": {"c": 0.31, "split": "by hash"}, "parent_version": 41, "libraries": {"numpy": "9.9.9"}}
    )

    text = Page(render(card, [])).text

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
    page = Page(render(CARD, []))

    assert "No holdout images: nothing was measured." in page.text
    assert "accuracy" not in page.text
    assert "Confusion" not in page.text


def test_files_that_were_left_out_are_listed_with_the_reason() -> None:
    left_out = [("cats/a.jpg", "the image is empty (0 bytes)"), ("stray.txt", "not inside a class folder")]

    text = Page(render(CARD, left_out)).text

    for name, reason in left_out:
        assert name + reason in text
    assert "No file was left out." not in text


def test_nothing_left_out_is_said_too() -> None:
    assert "No file was left out." in Page(render(CARD, [])).text


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
    page = Page(render(card, left_out))

    assert EVIL in page.text
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_report_is_one_page_without_scripts_or_outside_files() -> None:
    html = render(with_labels("red", "green"), [("a.jpg", "empty")])
    page = Page(html)

    assert html.lower().startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert ("charset", "utf-8") in page.attributes


@settings(deadline=None, max_examples=60)
@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
)
def test_any_label_and_any_file_name_can_be_read_in_the_report_and_add_no_tag(label: str, file: str) -> None:
    plain = Page(render(with_labels("a", "b"), [("c", "d")]))

    page = Page(render(with_labels(label, label + "2"), [(file, "d")]))

    assert page.tags == plain.tags
    assert label in page.text
    assert file in page.text
