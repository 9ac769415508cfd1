import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from regraft import artifact, show_comparison
from regraft.cli import app
from regraft.errors import DatasetError, InvalidRequestError, TrainingError
from regraft.store import ModelStore
from tests.training.conftest import CRAYONS, crayons
from training.compare import CHART_FILE, COMPARISON_FILE, PAGE_FILE, STORE_FOLDER, compare, model_name
from training.compare_settings import CompareSettings
from training.comparison import Comparison, Failure, Row, mark_pareto
from training.comparison_chart import draw
from training.comparison_page import render
from training.evaluate import wilson_interval
from training.strategy import Listener, Silent

pytestmark = pytest.mark.usefixtures("one_torch_thread")

LABELS = CRAYONS
NETWORKS = ("timm/test_resnet", "timm/test_vit")


@contextmanager
def unheard(_title: str) -> Iterator[Listener]:
    yield Silent()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "out"


@pytest.fixture(scope="module")
def compared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Compare two networks, and one that there is not, once for this module."""
    data = crayons(tmp_path_factory.mktemp("data") / "crayons", 10)
    backbones = (*NETWORKS, "no_such_network")
    return compare(
        CompareSettings(data, backbones, ("probe", "scratch"), folder, weights="none", seed=3, epochs=1), unheard
    )


def test_every_combination_becomes_a_model_that_can_be_served(compared: Comparison, folder: Path) -> None:
    store = ModelStore(folder / STORE_FOLDER)

    assert [(row.backbone, row.strategy) for row in compared.rows] == [
        (network, strategy) for network in NETWORKS for strategy in ("probe", "scratch")
    ]
    for row in compared.rows:
        assert row.name == model_name(row.backbone, row.strategy)
        assert store.champion(row.name) == row.version == 1
        card = artifact.read(folder / row.model).card
        assert (card.backbone.name, card.strategy, card.seed, card.labels) == (row.backbone, row.strategy, 3, LABELS)
        assert card.settings.get("epochs") == (1 if row.strategy == "scratch" else None)
        assert (folder / row.report).is_file()


def test_the_figures_are_those_of_the_cards_and_of_the_files(compared: Comparison, folder: Path) -> None:
    assert (compared.data, compared.labels, compared.train_images, compared.holdout_images) == ("crayons", 3, 24, 6)
    for row in compared.rows:
        card = artifact.read(folder / row.model).card
        assert card.metrics is not None
        assert (row.accuracy, row.accuracy_interval) == (card.metrics.accuracy, card.metrics.accuracy_interval)
        assert row.macro_f1 == card.metrics.macro_f1
        assert row.model_mb == pytest.approx((folder / row.model).stat().st_size / 1e6, abs=1e-3)
        assert 0.9 < 4 * row.parameters / 1e6 / row.model_mb <= 1 or row.model_mb < 1
        assert row.ms > 0
        assert row.seconds == pytest.approx(sum(row.stage_seconds.values()), abs=1e-3)
        assert ("finetune" in row.stage_seconds) == (row.strategy == "scratch")
    assert any(row.is_pareto for row in compared.rows)


def test_each_run_starts_with_an_empty_cache_and_leaves_none(compared: Comparison, folder: Path) -> None:
    assert all({"export", "embed"} <= row.stage_seconds.keys() for row in compared.rows)
    assert {path.name for path in folder.iterdir()} == {STORE_FOLDER, COMPARISON_FILE, PAGE_FILE, CHART_FILE}


def test_a_combination_that_fails_becomes_a_row_with_the_reason(compared: Comparison, folder: Path) -> None:
    assert [(failure.backbone, failure.strategy) for failure in compared.failures] == [
        ("no_such_network", "probe"),
        ("no_such_network", "scratch"),
    ]
    assert all("--backbone: no network 'no_such_network'" in failure.error for failure in compared.failures)
    assert "no_such_network" in (folder / PAGE_FILE).read_text()


def test_the_file_holds_all_of_it_as_json(compared: Comparison, folder: Path) -> None:
    read = json.loads((folder / COMPARISON_FILE).read_text())

    assert read == json.loads(json.dumps(compared.to_dict()))
    assert [row["error"] == "" for row in read["rows"]] == [True] * 4 + [False] * 2
    assert read["rows"][0].keys() >= {
        *("backbone", "strategy", "model", "report", "accuracy", "accuracy_interval", "macro_f1", "model_mb"),
        *("parameters", "ms", "seconds", "stage_seconds", "is_pareto"),
    }
    assert {gain["backbone"] for gain in read["gains"]} == set(NETWORKS)


def test_the_links_of_the_page_lead_to_the_reports(compared: Comparison, folder: Path) -> None:
    links = re.findall(r'href="([^"#]+)"', (folder / PAGE_FILE).read_text())

    assert links == [row.report for row in compared.rows]
    assert all((folder / link).is_file() for link in links)


def test_a_comparison_may_be_repeated_in_its_folder_and_on_the_command_line(
    compared: Comparison, folder: Path, tmp_path: Path
) -> None:
    before, again = compared.rows[0], tmp_path / "again"
    shutil.copytree(folder, again)
    options = ["--backbones", "timm/test_resnet", "--weights", "none", "--out", str(again), "--json"]

    answer = CliRunner().invoke(app, ["compare", str(crayons(tmp_path / "crayons", 10)), *options])

    assert answer.exit_code == 0, answer.output
    printed = json.loads(answer.stdout)
    assert printed.pop("folder") == str(again)
    assert printed == json.loads((again / COMPARISON_FILE).read_text())
    (row,) = printed["rows"]
    assert (row["name"], row["version"]) == (before.name, before.version + 1)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"backbones": ()}, "--backbones: '' is no list"),
        ({"backbones": ("a", "", "b")}, "--backbones: 'a,,b' is no list"),
        ({"backbones": ("a", "b", "a")}, "--backbones: 'a' is there twice"),
        ({"strategies": ()}, "--strategies: '' is no list"),
        ({"strategies": ("probe", "probe")}, "--strategies: 'probe' is there twice"),
        ({"strategies": ("prob",)}, "--strategies: 'prob'; there is: probe, finetune, scratch, auto"),
        ({"weights": "some.pth"}, "--weights: 'some.pth' is neither"),
        ({"epochs": 3}, "--epochs: has no effect on a probe"),
    ],
)
def test_flags_that_make_no_sense_are_refused_by_their_names(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{re.escape(complaint)}"):
        CompareSettings(**{"data": Path("photos"), "backbones": ("a",), **flags})


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(InvalidRequestError, match=r"--out: .* something else than a comparison"):
        compare(CompareSettings(tmp_path / "photos", ("a",), out=tmp_path), unheard)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_data_that_cannot_be_trained_on_is_refused_once_and_not_for_every_row(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)

    with pytest.raises(DatasetError, match="no images in cats"):
        compare(CompareSettings(tmp_path / "photos", NETWORKS, out=tmp_path / "out"), unheard)


def test_where_everything_fails_the_first_reason_is_told(tmp_path: Path) -> None:
    data = crayons(tmp_path / "crayons", 10)

    with pytest.raises(TrainingError, match="nothing could be compared; nonet, probe: --backbone: no network 'nonet'"):
        compare(CompareSettings(data, ("nonet", "nonet2"), out=tmp_path / "out", weights="none"), unheard)


def test_the_folder_is_called_after_the_data(tmp_path: Path) -> None:
    assert CompareSettings(tmp_path / "my photos", ("a",)).folder == Path("compare-my photos")


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("resnet18", "resnet18-probe"), ("timm/test_vit", "timm-test_vit-probe"), ("../x y", "x-y-probe")],
)
def test_a_model_is_called_after_its_combination(backbone: str, name: str) -> None:
    assert model_name(backbone, "probe") == name


def test_long_names_stay_apart() -> None:
    names = {model_name("timm/" + "x" * 80 + end, "finetune") for end in "ab"}

    assert len(names) == 2
    assert all(len(name) == 64 and name.endswith("-finetune") for name in names)


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def row(backbone: str, strategy: str = "probe", *, accuracy: float = 0.9, mb: float = 10.0, ms: float = 5.0) -> Row:
    correct = round(200 * accuracy)
    return Row(
        backbone=backbone,
        strategy=strategy,
        carried_out=strategy,
        weights="none",
        name="model",
        version=1,
        model="models/model/1/model.onnx",
        report="models/model/1/report.html",
        accuracy=correct / 200,
        accuracy_interval=wilson_interval(correct, 200),
        macro_f1=accuracy,
        model_mb=mb,
        parameters=1,
        ms=ms,
        seconds=1.0,
    )


def comparison(*outcomes: Row | Failure, data: str = "photos") -> Comparison:
    return Comparison(data, 3, 800, 200, "by hash", 0, None, "here", "2026-01-01", mark_pareto(outcomes))


NASTY = "<script>alert('$x$')</script>"


def test_the_page_is_one_file_and_escapes_what_others_wrote() -> None:
    found = comparison(row(NASTY), Failure("a", "probe", f"no {NASTY}"), data=NASTY)

    page = Page(render(found, draw(found)))

    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.text.count(NASTY) >= 4
    assert [address for address in page.addresses if not address.startswith("data:")] == ["models/model/1/report.html"]


def test_the_chart_is_in_the_page_and_beside_it(compared: Comparison, folder: Path) -> None:
    (source,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', (folder / PAGE_FILE).read_text())

    assert base64.b64decode(source) == (folder / CHART_FILE).read_bytes() == draw(compared)


def test_the_chart_is_well_formed_and_the_same_every_time() -> None:
    found = comparison(row("a & b"), row("c", "scratch", accuracy=0.4), row("d", "finetune", mb=300, ms=80))

    chart = draw(found)

    assert ET.fromstring(chart).tag.endswith("svg")  # noqa: S314 - we made it
    assert draw(found) == chart


@pytest.mark.parametrize("count", [0, 1])
def test_a_chart_of_hardly_anything_can_be_drawn_too(count: int) -> None:
    unmeasured = Row(**{**vars(row("c")), "accuracy": None, "accuracy_interval": None, "macro_f1": None})
    found = comparison(*[row("a", accuracy=1.0)] * count, unmeasured)

    assert draw(found).startswith(b"<?xml")
    assert "not measured" in Page(render(found, draw(found))).text


def test_the_terminal_shows_every_row_the_stars_and_what_transfer_brought(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = comparison(
        row("net", accuracy=0.9), row("net", "scratch", accuracy=0.5), Failure("b", "probe", "no [such]")
    )

    show_comparison.comparison({**found.to_dict(), "folder": "out"})

    shown = capsys.readouterr().out
    assert re.search(r"★ +net +probe +90\.0%", shown)
    assert re.search(r"\n +net +scratch +50\.0%", shown)
    assert "b, probe: no [such]" in shown
    assert "net: probe is 40.0 points above scratch in about the same time" in shown
