import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import ArtifactError, TrainingError
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, backbone_digest
from regraft.model.card import RequestedPrecision, Strategy
from regraft.model.session import open_session
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE, REPORT_JSON_FILE, ModelStore
from tests.tiny import picture, tiny_backbone
from tests.training.conftest import CRAYONS, as_exported, crayons
from tests.training.convolutions import conv_backbone
from training.backbones.cache import ExportedBackbone
from training.data.dataset import scan
from training.evaluation.paired_comparison import PairedComparison
from training.head.features import load_features
from training.quantisation.precision import MIN_SPEED_UP, decide, in_precision
from training.retrain.job import run_job
from training.settings import TrainSettings
from training.strategies.context import Candidate, Context, SilentListener
from training.strategies.probe import probe_on
from training.train import train

LABELS = CRAYONS

SHARES = st.floats(0, 1)
SPEEDS = st.floats(0.1, 10)
COMPARISONS = st.builds(
    PairedComparison,
    images=st.integers(1, 10_000),
    gain=st.floats(-5, 5),
    error=st.floats(0, 5),
    accuracy=st.tuples(SHARES, SHARES),
)


def compared(
    fp32: float, int8: float, *, images: int = 1000, gain: float = 0.0, error: float = 0.01
) -> PairedComparison:
    return PairedComparison(images, gain, error, (fp32, int8), (1.0, 1.0 - gain))


@pytest.mark.parametrize(
    ("comparison", "speed_up", "choice", "why"),
    [
        (compared(0.9, 0.9), 2.0, "int8", "faster, and nothing is lost"),
        (compared(0.9, 0.95, gain=0.1), 2.0, "int8", "faster"),
        (compared(0.9, 0.896), 2.0, "int8", "faster"),
        (compared(0.9, 0.89), 2.0, "fp32", "it loses 1.0 points"),
        (compared(0.9, 0.8), 2.0, "fp32", "it loses 10.0 points"),
        (compared(0.9, 0.875, images=40), 2.0, "int8", "faster"),  # one image
        (compared(0.9, 0.85, images=40), 2.0, "fp32", "it loses 5.0 points"),  # two
        (compared(0.9, 0.9, gain=-0.03), 2.0, "fp32", "log loss is surely higher, by 0.030"),
        (compared(0.9, 0.9, gain=-0.019), 2.0, "int8", "faster"),
        (compared(0.9, 0.9), 1.05, "fp32", "not faster here"),
        (compared(0.9, 0.9), 0.5, "fp32", "not faster here"),
        (None, 2.0, "fp32", "no images could be set aside"),
    ],
)
def test_auto_takes_int8_where_it_is_faster_and_nothing_is_lost(
    comparison: PairedComparison | None, speed_up: float, choice: str, why: str
) -> None:
    verdict = decide("auto", comparison, speed_up)

    assert verdict.choice == choice
    assert why in verdict.why


@given(COMPARISONS, SPEEDS)
def test_who_insists_gets_int8_unless_it_is_nonsense_and_never_fp32(
    comparison: PairedComparison, speed_up: float
) -> None:
    lost = comparison.accuracy[0] - comparison.accuracy[1]

    assert decide("int8", None, speed_up).choice == "int8"
    assert decide("int8", comparison, speed_up).choice == (
        "refused" if lost > max(0.05, 1 / comparison.images) + 1e-9 else "int8"
    )


@given(COMPARISONS, SPEEDS)
def test_auto_never_fails_and_never_takes_what_is_slower(comparison: PairedComparison, speed_up: float) -> None:
    verdict = decide("auto", comparison, speed_up)

    assert verdict.choice in ("fp32", "int8")
    assert verdict.choice == "fp32" or speed_up >= MIN_SPEED_UP
    assert verdict.why


@given(COMPARISONS, SPEEDS, SHARES)
def test_a_better_int8_is_never_refused_where_a_worse_one_was_taken(
    comparison: PairedComparison, speed_up: float, accuracy: float
) -> None:
    fp32, int8 = comparison.accuracy
    better = replace(comparison, accuracy=(fp32, max(int8, accuracy)))

    taken = decide("auto", comparison, speed_up).choice == "int8"

    assert not taken or decide("auto", better, speed_up).choice == "int8"


class Heard(SilentListener):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def progress(self, stage: str, _done: int, _total: int) -> None:
        if stage not in self.stages:
            self.stages.append(stage)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Fifteen pictures of each of three colours."""
    return crayons(tmp_path / "crayons", 15)


def probed(
    data: Path, model: onnx.ModelProto, precision: RequestedPrecision, heard: Heard
) -> tuple[Candidate, Candidate]:
    """Return what a probe of the backbone makes in fp32 and in the precision."""
    settings = TrainSettings(data, precision=precision, cv=2, views=1)
    context = Context(settings, data.parent, data.parent / "runs", heard)
    backbone = as_exported(model)
    made = probe_on(backbone, scan(data), context)
    return made, in_precision(made, context)


def test_a_probe_is_made_anew_on_what_the_int8_backbone_makes_of_every_picture_and_view(data: Path) -> None:
    heard = Heard()

    fp32, int8 = probed(data, conv_backbone(), "int8", heard)

    assert (fp32.backbone.precision, int8.backbone.precision) == ("fp32", "int8")
    assert int8.backbone.digest == backbone_digest(int8.backbone.model) != fp32.backbone.digest
    assert int8.features.sha256 == fp32.features.sha256
    assert (int8.features.embedding != fp32.features.embedding).any(axis=1).all()
    assert int8.findings.cross_validation is not None
    assert heard.stages.index("quantise") < heard.stages.index("measure")
    (note,) = int8.findings.notes
    assert heard.notes == [note]
    assert "on 36 training images that the heads were not fitted on it is right on 100.0%, fp32 on 100.0%" in note
    assert "int8 takes" in note
    assert note.endswith("int8 is kept: it was asked for.")


def test_what_is_kept_under_fp32_is_the_very_same(data: Path) -> None:
    heard = Heard()

    made, kept = probed(data, conv_backbone(), "fp32", heard)

    assert kept is made
    assert heard.notes == []


def test_int8_is_the_same_in_every_run(data: Path) -> None:
    first, second = (probed(data, conv_backbone(), "int8", Heard())[1] for _ in range(2))

    assert first.backbone.digest == second.backbone.digest
    assert first.fitted.head.digest() == second.fitted.head.digest()


def test_auto_keeps_fp32_where_the_backbone_cannot_be_quantised_and_says_why(data: Path) -> None:
    made, kept = probed(data, tiny_backbone(), "auto", Heard())

    assert kept.backbone is made.backbone
    assert kept.findings.notes == (
        "fp32 is kept: int8 brings nothing here: the backbone has neither convolutions nor matrix products.",
    )


def test_who_insists_on_int8_hears_that_the_backbone_cannot_be_quantised(data: Path) -> None:
    with pytest.raises(ArtifactError, match="--precision int8: int8 brings nothing here"):
        probed(data, tiny_backbone(), "int8", Heard())


def test_who_insists_on_nonsense_is_told_the_figures_and_what_to_do(data: Path) -> None:
    with pytest.raises(TrainingError, match=r"it is right on \d.*%, fp32 on .*it loses .* points, .*--precision fp32"):
        probed(data, conv_backbone(loud=1e5), "int8", Heard())


def test_auto_keeps_fp32_rather_than_nonsense(data: Path) -> None:
    heard = Heard()

    made, kept = probed(data, conv_backbone(loud=1e5), "auto", heard)

    assert kept.backbone is made.backbone
    assert "fp32 is kept: it " in heard.notes[0]


@pytest.fixture
def network(
    backbones_folder: Path, exported: Callable[[str], ExportedBackbone], monkeypatch: pytest.MonkeyPatch
) -> str:
    """A network that was exported once in the whole run."""
    exported("timm/test_resnet")
    monkeypatch.setenv("REGRAFT_CACHE", str(backbones_folder))
    return "timm/test_resnet"


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("strategy", ["probe", "finetune"])
def test_a_version_in_int8_answers_as_was_measured_and_is_retrained(
    data: Path, network: str, strategy: Strategy
) -> None:
    store = ModelStore(data.parent / "models")
    changes = {} if strategy == "probe" else {"epochs": 1, "batch": 8}
    settings = TrainSettings(
        data,
        "colours",
        store.root,
        network,
        "none",
        strategy,
        changes=changes,
        precision="int8",
    )

    result = train(settings)

    read, features = artifact.read(result.path), load_features(result.path.parent / FEATURES_FILE)
    assert result.to_dict()["precision"] == read.card.backbone.precision == "int8"
    report = json.loads((result.path.parent / REPORT_JSON_FILE).read_text())
    assert report["card"]["backbone"]["precision"] == "int8"
    session = open_session(result.path, provider="cpu", threads=1).session
    files = {image.sha256: image.path for image in scan(data).images}
    for row in (0, -1):
        crop = decode_crop(files[features.sha256[row]].read_bytes(), read.card.image)
        (served,) = session.run([EMBEDDING], {IMAGE: crop[None]})
        np.testing.assert_array_equal(served[0], features.embedding[row])

    examples = ExamplesStore(store.root / EXAMPLES_FOLDER)
    for number in range(12):
        examples.add("colours", picture("grey", number, side_px=24), "grey")
    job = run_job(store, examples, examples.jobs.create("colours", {}, "test").id)
    examples.close()

    assert job.state in (JobState.SUCCEEDED, JobState.REFUSED), job.message
    retrained = artifact.read(store.folder("colours", 2) / "model.onnx").card
    assert retrained.backbone == read.card.backbone
    assert retrained.labels == (*LABELS, "grey")


def test_the_command_line_refuses_a_precision_that_there_is_not(data: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(data), "--precision", "int4"])

    assert "--precision: 'int4'; there is: fp32, int8, auto" in str(result.exception)
