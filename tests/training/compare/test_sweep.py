import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.cli.training.compare import show_comparison
from regraft.errors import DatasetError, InvalidRequestError, TrainingError
from regraft.model import artifact
from regraft.stores.models import ModelStore
from tests.page import Page
from tests.training.conftest import CRAYONS, crayons
from training.backbones.build import build_backbone
from training.compare.page import draw_charts, render
from training.compare.results import DataSet, EpochPoint, FailedRun, FinishedRun, Run, SweepResult, mark_pareto
from training.compare.run import STORE_FOLDER, model_name
from training.compare.settings import CompareSettings
from training.compare.sweep import CHART_FOLDER, COMPARISON_FILE, PAGE_FILE, compare
from training.evaluation.metrics import wilson_interval
from training.head.features import load_features
from training.strategies.context import Listener, SilentListener

pytestmark = pytest.mark.usefixtures("one_torch_thread")

LABELS = CRAYONS
NETWORK = "timm/test_resnet"
STRATEGIES = ("finetune", "scratch")


@contextmanager
def unheard(_title: str) -> Iterator[Listener]:
    yield SilentListener()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "out"


@pytest.fixture(scope="module")
def asked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CompareSettings:
    return CompareSettings(
        (crayons(tmp_path_factory.mktemp("data") / "crayons", 10),),
        (NETWORK, "no_such_network"),
        STRATEGIES,
        folder,
        weights="none",
        seed=3,
        changes={"epochs": 2, "batch": 8, "freeze": "0.5", "backbone_lr": 1e-4},
    )


@pytest.fixture(scope="module")
def compared(asked: CompareSettings) -> SweepResult:
    """Compare a network, and one that there is not, once for this module."""
    return compare(asked, unheard)


def test_every_combination_becomes_a_model_that_can_be_served(compared: SweepResult, folder: Path) -> None:
    store = ModelStore(folder / STORE_FOLDER)

    assert [(row.backbone, row.strategy) for row in compared.rows] == [(NETWORK, "finetune"), (NETWORK, "scratch")]
    for row in compared.rows:
        assert row.name == model_name(row)
        assert store.champion(row.name) == row.version == 1
        card = artifact.read(folder / row.model).card
        assert (card.backbone.name, card.strategy, card.seed, card.labels) == (row.backbone, row.carried_out, 3, LABELS)
        assert (card.settings["epochs"], card.settings["batch"], card.settings["backbone_lr"]) == (2, 8, 1e-4)
        assert card.settings.get("freeze") == ("0.5" if row.strategy == "finetune" else None)  # the control is whole
        assert (folder / row.report).is_file()


def test_the_figures_are_those_of_the_cards_and_of_the_files(compared: SweepResult, folder: Path) -> None:
    (data,) = compared.datasets
    assert (data.name, data.labels, data.train_images, data.holdout_images) == ("crayons", 3, 24, 6)
    for row in compared.rows:
        card = artifact.read(folder / row.model).card
        assert card.metrics is not None
        assert (row.accuracy, row.accuracy_interval) == (card.metrics.accuracy, card.metrics.accuracy_interval)
        assert row.macro_f1 == card.metrics.macro_f1
        assert row.model_mb == pytest.approx((folder / row.model).stat().st_size / 1e6, abs=1e-3)
        assert 0.9 < 4 * row.parameters / 1e6 / row.model_mb <= 1 or row.model_mb < 1
        assert row.ms > 0
        assert row.seconds == pytest.approx(sum(row.stage_seconds.values()), abs=1e-3)
        report = json.loads((folder / row.report).with_suffix(".json").read_text())["findings"]
        rates = [epoch["images_per_s"] for epoch in report["epochs"] if epoch["number"] > 0]
        assert row.images_per_s == pytest.approx(median(rates), abs=0.06)
        features = load_features((folder / row.model).with_name("features.npz"))
        head = artifact.read(folder / row.model).head
        right = head.probabilities(features.embedding).argmax(axis=1) == features.label_index
        assert row.train_accuracy == right[~features.is_holdout].mean()
        assert len(row.mistakes) == (~right[features.is_holdout]).sum()
    assert any(row.is_pareto for row in compared.rows)


def test_each_run_starts_with_an_empty_cache_and_leaves_none(compared: SweepResult, folder: Path) -> None:
    assert all({"export", "embed"} <= row.stage_seconds.keys() for row in compared.rows)
    assert {path.name for path in folder.iterdir()} == {STORE_FOLDER, COMPARISON_FILE, PAGE_FILE, CHART_FOLDER}


def test_a_combination_that_fails_becomes_a_row_with_the_reason(compared: SweepResult, folder: Path) -> None:
    assert [(failure.backbone, failure.strategy) for failure in compared.failures] == [
        ("no_such_network", "finetune"),
        ("no_such_network", "scratch"),
    ]
    assert all("--backbone: no network 'no_such_network'" in failure.error for failure in compared.failures)
    assert "no_such_network" in (folder / PAGE_FILE).read_text()


def test_the_file_holds_all_of_it_as_json(compared: SweepResult, folder: Path) -> None:
    read = json.loads((folder / COMPARISON_FILE).read_text())

    assert read == json.loads(json.dumps(compared.to_dict()))
    assert [row["error"] == "" for row in read["rows"]] == [True] * 2 + [False] * 2
    assert read["rows"][0].keys() >= {
        *("backbone", "strategy", "model", "report", "accuracy", "accuracy_interval", "macro_f1", "model_mb"),
        *("parameters", "ms", "seconds", "stage_seconds", "is_pareto", "train_accuracy", "images_per_s"),
    }
    assert [gain["backbone"] for gain in read["gains"]] == [NETWORK]


def test_the_links_of_the_page_lead_to_the_reports(compared: SweepResult, folder: Path) -> None:
    links = re.findall(r'href="([^"#]+)"', (folder / PAGE_FILE).read_text())

    assert links == [row.report for row in compared.rows]
    assert all((folder / link).is_file() for link in links)


def test_an_interrupted_comparison_goes_on_with_the_runs_that_are_missing(
    compared: SweepResult, asked: CompareSettings, tmp_path: Path
) -> None:
    shutil.copytree(asked.folder, tmp_path / "out")
    wider = replace(asked, backbones=(NETWORK,), strategies=("finetune",), shares=("12",), out=tmp_path / "out")
    titles: list[str] = []

    @contextmanager
    def listen(title: str) -> Iterator[Listener]:
        titles.append(title)
        yield SilentListener()

    found = compare(replace(wider, resume=True), listen)

    assert [title for title in titles if " of 2: " in title] == [
        f"2 of 2: crayons, {NETWORK}, finetune, 12 pictures, seed 3"
    ]
    whole, share = found.rows
    assert replace(whole, ms=0, is_pareto=False) == replace(compared.rows[0], ms=0, is_pareto=False)
    assert (share.train_images, len(share.curve) >= 2, share.model) == (12, True, "")
    assert found.datasets == compared.datasets


def test_a_comparison_of_other_pictures_or_another_recipe_does_not_go_on(
    compared: SweepResult, asked: CompareSettings, tmp_path: Path
) -> None:
    assert compared.rows
    before = (asked.folder / COMPARISON_FILE).read_bytes()

    with pytest.raises(InvalidRequestError, match="--resume: the pictures are others"):
        compare(replace(asked, data=(crayons(tmp_path / "crayons", 9),), resume=True), unheard)
    with pytest.raises(InvalidRequestError, match=r"--resume: .* was made by"):
        compare(replace(asked, changes={"epochs": 9}, resume=True), unheard)

    assert (asked.folder / COMPARISON_FILE).read_bytes() == before


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
        ({"changes": {"epochs": 3}}, "--epochs: has no effect on a probe"),
        ({"changes": {"backbone_lr": 3}}, "--lr: has no effect on a probe"),
        ({"changes": {"freeze": "0.5"}, "strategies": ("scratch",)}, "--freeze: has no effect"),
        ({"init": "source"}, "--init: has no effect"),
        ({"init": "nowhere"}, "--init: 'nowhere'; there is: head, source"),
        ({"shares": ("some",)}, "--shares: 'some' is neither"),
        ({"shares": ("20", "20")}, "--shares: '20' is there twice"),
        ({"seeds": 0}, "--seed: 0, --seeds: 0"),
        ({"publish": "worst"}, "--publish: 'worst'; there is: best"),
        ({"name": "flowers"}, "--name: names the one model"),
        ({"data": (Path("a/photos"), Path("b/photos"))}, "DATA: 'photos' is there twice"),
    ],
)
def test_flags_that_make_no_sense_are_refused_by_their_names(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{re.escape(complaint)}"):
        CompareSettings(**{"data": (Path("photos"),), "backbones": ("a",), **flags})


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(InvalidRequestError, match=r"--out: .* something else than a comparison"):
        compare(CompareSettings((tmp_path / "photos",), ("a",), out=tmp_path), unheard)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_data_that_cannot_be_trained_on_is_refused_once_and_not_for_every_row(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)

    with pytest.raises(DatasetError, match="no images in cats"):
        compare(CompareSettings((tmp_path / "photos",), (NETWORK,), out=tmp_path / "out"), unheard)


def test_where_everything_fails_the_first_reason_is_told(tmp_path: Path) -> None:
    data = crayons(tmp_path / "crayons", 10)

    with pytest.raises(TrainingError, match="nothing could be compared; nonet, probe: --backbone: no network 'nonet'"):
        compare(CompareSettings((data,), ("nonet", "nonet2"), out=tmp_path / "out", weights="none"), unheard)


def test_the_folder_is_called_after_the_data(tmp_path: Path) -> None:
    one, two = tmp_path / "my photos", tmp_path / "steel"

    assert CompareSettings((one,), ("a",)).folder == Path("compare-my photos")
    assert CompareSettings((one, two), ("a",)).folder == Path("compare-my photos-steel")


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("resnet18", "resnet18-probe"), ("timm/test_vit", "timm-test_vit-probe"), ("../x y", "x-y-probe")],
)
def test_a_model_is_called_after_its_combination(backbone: str, name: str) -> None:
    assert model_name(Run(data="photos", backbone=backbone, strategy="probe")) == name


def test_long_names_stay_apart() -> None:
    runs = [Run(data="photos", backbone="timm/" + "x" * 80 + end, strategy="finetune") for end in "ab"]
    names = {model_name(run, prefixed=prefixed) for run in runs for prefixed in (False, True)}

    assert len(names) == 4
    assert all(len(name) == 64 and name.endswith("-finetune") for name in names)


def test_models_of_data_of_any_script_are_called_after_it() -> None:
    runs = [Run(data=data, backbone="a", strategy="probe") for data in ("热狗", "寿司")]

    assert [model_name(run, prefixed=True) for run in runs] == ["热狗-a-probe", "寿司-a-probe"]


def row(
    backbone: str,
    strategy: str = "probe",
    *,
    accuracy: float = 0.9,
    mb: float = 10.0,
    ms: float = 5.0,
    **others: object,
) -> FinishedRun:
    correct = round(200 * accuracy)
    fields: dict[str, Any] = {
        "data": "photos",
        "backbone": backbone,
        "strategy": strategy,
        "carried_out": strategy,
        "weights": "none",
        "train_images": 800,
        "name": "model",
        "version": 1,
        "model": "models/model/1/model.onnx",
        "report": "models/model/1/report.html",
        "accuracy": correct / 200,
        "accuracy_interval": wilson_interval(correct, 200),
        "macro_f1": accuracy,
        "mistakes": tuple(map(str, range(200 - correct))),
        "train_accuracy": 1.0,
        "unseen_accuracy": accuracy,
        "images_per_s": 100.0,
        "model_mb": mb,
        "parameters": 1,
        "ms": ms,
        "seconds": 1.0,
    }
    return FinishedRun(**{**fields, **others})


def failure(backbone: str, error: str, data: str = "photos") -> FailedRun:
    return FailedRun(data=data, backbone=backbone, strategy="probe", error=error)


def comparison(*outcomes: FinishedRun | FailedRun, data: str = "photos") -> SweepResult:
    facts = DataSet(data, 3, 800, 200, "by hash", "0" * 64)
    return SweepResult((facts,), (0,), {"weights": "none"}, "here", "2026-01-01", mark_pareto(outcomes))


NASTY = "<script>alert('$x$')</script>"


def test_the_page_is_one_file_and_escapes_what_others_wrote() -> None:
    found = comparison(row(NASTY, data=NASTY), failure("a", f"no {NASTY}", NASTY), data=NASTY)

    page = Page(render(found, draw_charts(found)))

    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.text.count(NASTY) >= 4
    assert [address for address in page.values("src", "href", "xlink:href") if not address.startswith("data:")] == [
        "models/model/1/report.html"
    ]


def test_the_charts_are_in_the_page_and_beside_it(compared: SweepResult, folder: Path) -> None:
    sources = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', (folder / PAGE_FILE).read_text())

    charts = {path.name: path.read_bytes() for path in (folder / CHART_FOLDER).iterdir()}
    assert set(charts) == {"crayons-speed.svg", "crayons-epochs.svg"}  # one number of pictures makes no curve
    assert {base64.b64decode(source) for source in sources} == set(charts.values())
    assert set(draw_charts(compared)["crayons"].values()) == set(charts.values())


def test_charts_are_well_formed_and_the_same_every_time() -> None:
    curve = (EpochPoint(1, 2.0, 0.5), EpochPoint(2, 4.0, 0.7))
    found = comparison(
        row("a & b"),
        row("a & b", accuracy=0.7, share="20", train_images=20, model=""),
        row("c", "scratch", accuracy=0.4, curve=curve),
        row("c", "scratch", accuracy=0.5, curve=curve[:1], seed=1, model=""),
        row("d", "finetune", mb=300, ms=80, curve=curve),
    )

    charts = draw_charts(found)["photos"]

    assert set(charts) == {"speed", "pictures", "epochs"}
    assert all(ET.fromstring(chart).tag.endswith("svg") for chart in charts.values())  # noqa: S314 - we made it
    assert draw_charts(found)["photos"] == charts


@pytest.mark.parametrize("data", ["热狗", "صور", "फूल", "ไก่"])
def test_data_of_any_script_is_named_as_text_that_a_browser_has_letters_for(data: str) -> None:
    """Warnings are errors here: matplotlib warns of each letter that its own font lacks."""
    curve = (EpochPoint(1, 2.0, 0.5), EpochPoint(2, 4.0, 0.7))
    found = comparison(row("a", data=data), row("b", "finetune", data=data, curve=curve), data=data)

    page = Page(render(found, draw_charts(found)))

    assert data in page.text


@pytest.mark.parametrize("count", [0, 1])
def test_a_chart_of_hardly_anything_can_be_drawn_too(count: int) -> None:
    unmeasured = replace(row("c", accuracy_interval=None, macro_f1=None), accuracy=None)
    found = comparison(*[row("a", accuracy=1.0)] * count, unmeasured)

    charts = draw_charts(found)

    assert charts["photos"]["speed"].startswith(b"<?xml")
    assert "not measured" in Page(render(found, charts)).text


def test_the_terminal_shows_every_row_the_stars_and_what_transfer_brought(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = comparison(
        row("net", accuracy=0.9),
        row("net", accuracy=0.6, share="20", train_images=20, model=""),
        row("net", "scratch", accuracy=0.5),
        failure("b", "no [such]"),
    )

    show_comparison({**found.to_dict(), "folder": "out"})

    shown = capsys.readouterr().out
    assert re.search(r"★ +net +probe +90\.0%", shown)
    assert re.search(r"\n +net +scratch +50\.0%", shown)
    assert re.search(r"net +probe +60\.0% +90\.0%", shown)
    assert re.search(r"net +scratch +- +50\.0%", shown)
    assert "b, probe, all, seed 0: no [such]" in shown
    assert "net: probe is 40.0 points above scratch in about the same time" in shown


@dataclass(frozen=True)
class Learned:
    """A comparison, what it says, and the pictures that each run put through the network."""

    settings: CompareSettings
    result: dict[str, Any]
    embedded: dict[str, int]


class Counting(SilentListener):
    """Hears how many pictures a run embeds."""

    def __init__(self) -> None:
        self.embedded = 0

    def progress(self, stage: str, done: int, total: int) -> None:
        self.embedded += stage == "embed" and done == total and total


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """Probe shares of two sets by two seeds, and publish the best of each."""
    place = tmp_path_factory.mktemp("learned")
    data = crayons(place / "crayons", 10), crayons(place / "chalk", 9)
    torch.save(build_backbone(NETWORK, "none", 7).network.state_dict(), place / "timm-test_resnet.pth")
    settings = CompareSettings(
        data,
        (NETWORK,),
        out=place / "out",
        shares=("12", "all"),
        seeds=2,
        publish="best",
        store=place / "store",
    )
    heard: dict[str, Counting] = {}

    @contextmanager
    def listen(title: str) -> Iterator[Listener]:
        yield heard.setdefault(title, Counting())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_WEIGHTS", str(place))
        found = compare(settings, listen)
    return Learned(
        settings,
        json.loads(json.dumps(found.to_dict())),
        {title: listener.embedded for title, listener in heard.items() if NETWORK in title},
    )


def test_every_picture_is_embedded_once_however_many_shares_and_seeds_there_are(learned: Learned) -> None:
    sizes = {each["name"]: each["train_images"] + each["holdout_images"] for each in learned.result["datasets"]}

    assert {title: count for title, count in learned.embedded.items() if count} == {
        f"1 of 8: crayons, {NETWORK}, probe, seed 0": sizes["crayons"],
        f"2 of 8: chalk, {NETWORK}, probe, seed 0": sizes["chalk"],
    }
    assert len(learned.embedded) == 8 + len(sizes)  # the winners go through it again, before the gate


def test_the_time_that_is_left_is_told_once_a_seed_has_shown_what_each_run_takes(learned: Learned) -> None:
    left = [re.search(r"; about \d+ min to go$", title) is not None for title in learned.embedded]

    assert left[:8] == [False] * 4 + [True] * 4


def test_every_share_and_seed_is_a_run_on_the_same_holdout(learned: Learned) -> None:
    result = learned.result

    sizes = {each["name"]: each["train_images"] for each in result["datasets"]}
    runs = [(row["seed"], row["share"], row["data"], row["strategy"], row["train_images"]) for row in result["rows"]]
    assert runs == [
        (seed, share, data, "probe", count if share == "all" else 12)
        for seed in (0, 1)
        for share in ("all", "12")
        for data, count in sizes.items()
    ]
    assert not any(row["error"] for row in result["rows"])
    assert all(each["holdout_images"] == 6 for each in result["datasets"])


def test_only_the_first_run_on_all_pictures_is_kept_as_a_model(learned: Learned) -> None:
    settings, result = learned.settings, learned.result

    kept = [row for row in result["rows"] if row["model"]]
    assert {(row["share"], row["seed"]) for row in kept} == {("all", 0)}
    assert {path.name for path in (settings.folder / STORE_FOLDER).iterdir() if path.name[0] != "."} == {
        f"{data}-timm-test_resnet-probe" for data in ("crayons", "chalk")
    }
    assert all(row["ms"] > 0 and (settings.folder / row["report"]).is_file() for row in kept)


def test_learning_curves_are_means_and_ranges_of_the_seeds(learned: Learned) -> None:
    result = learned.result

    for point in result["learning_curves"]:
        mine = [row for row in result["rows"] if all(row[key] == point[key] for key in ("data", "strategy", "share"))]
        accuracies = [row["accuracy"] for row in mine]
        assert (point["seeds"], point["lowest"], point["highest"]) == (2, min(accuracies), max(accuracies))
        assert point["mean"] == pytest.approx(sum(accuracies) / 2)
    assert len(result["learning_curves"]) == 2 * 2


def test_what_learns_by_epochs_tells_accuracy_over_epochs_and_seconds(compared: SweepResult) -> None:
    for row in compared.rows:
        seconds = [moment.seconds for moment in row.curve]
        assert [moment.epoch for moment in row.curve if moment.epoch > 0] == [1, 2]
        assert seconds == sorted(seconds)
        assert 0 < seconds[0] < seconds[-1] < row.seconds


def test_the_winner_goes_into_the_store_and_is_the_model_that_was_compared(learned: Learned) -> None:
    settings, result = learned.settings, learned.result
    store = ModelStore(settings.store)

    for published in result["published"]:
        rows = [row for row in result["rows"] if row["data"] == published["data"]]
        [model] = [row for row in rows if row["model"] and row["strategy"] == published["strategy"]]
        assert (store.champion(published["name"]), published["promoted"]) == (published["version"], True)
        card = artifact.read(store.folder(published["name"], published["version"]) / "model.onnx").card
        assert card.head_digest == artifact.read(settings.folder / model["model"]).card.head_digest
        assert "training pictures that it had not seen" in published["why"]
    assert [published["name"] for published in result["published"]] == ["crayons", "chalk"]


def test_a_winner_that_the_gate_refuses_waits_and_a_comparison_may_be_made_anew_in_its_folder(
    learned: Learned, tmp_path: Path
) -> None:
    settings = learned.settings
    again = tmp_path / "again"
    shutil.copytree(settings.folder, again)
    shutil.copytree(settings.data[0], tmp_path / "crayons")
    shutil.rmtree(tmp_path / "crayons" / "blue")  # which the champion knows
    options = ["--backbones", NETWORK, "--weights", "none", "--shares", "8,all", "--seeds", "1", "--publish", "best"]
    options += ["--store", str(settings.store)]

    answer = CliRunner().invoke(app, ["compare", str(tmp_path / "crayons"), *options, "--out", str(again), "--json"])

    assert answer.exit_code == 1, answer.output
    printed = json.loads(answer.stdout)
    assert printed.pop("folder") == str(again)
    assert printed == json.loads((again / COMPARISON_FILE).read_text())
    (published,) = printed["published"]
    assert not published["promoted"]
    assert "class 'blue' would be gone" in published["reasons"][0]
    assert ModelStore(settings.store).champion("crayons") == 1


@pytest.mark.parametrize("share", ["5", "25"])
def test_a_share_that_does_not_fit_is_refused_before_anything_is_trained(
    share: str, learned: Learned, tmp_path: Path
) -> None:
    settings = learned.settings

    with pytest.raises(InvalidRequestError, match=f"--shares: {share}: of these .* a share has 6 to 2"):
        compare(replace(settings, shares=(share,), out=tmp_path / "out"), unheard)

    assert not (tmp_path / "out" / STORE_FOLDER).exists()
