import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import (
    DatasetError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    RegraftError,
    TrainingError,
)
from regraft.image.decode import decode_crop
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.artifact import IMAGE, PROBABILITIES
from regraft.model.card import parse_card
from regraft.model.session import open_session
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import MODEL_FILE, ModelStore
from tests.tiny import SPEC, picture
from tests.training.conftest import block, in_a_child
from tests.training.float_versions import LABELS, NAME, photos, publish_float
from training.export.export import export_version
from training.export.formats.catalogue import Format
from training.export.result import Export
from training.quantisation.quantise import Cpu, this_cpu
from training.quantisation.version import quantise_version

FORMATS: tuple[Format, ...] = get_args(Format)
# Triton's own messages have the names of ours, so that one process cannot have both.
READ_CONFIG = """
import sys
from pathlib import Path
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = text_format.Parse(Path(sys.argv[1]).read_text(), model_config_pb2.ModelConfig())
print(json_format.MessageToJson(config))
"""
OTHER_CPU: Cpu = "arm" if this_cpu() != "arm" else "x86"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


def run(store: ModelStore, data: Path | None, to: str = "onnx", wanted: str = NAME, **flags: Any) -> Export:  # noqa: ANN401 - its flags
    given: dict[str, Any] = {"examples": str(store.root / ".examples"), **flags}
    return export_version(store, wanted, to, store.root.parent / "exported", data=data, **given)


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_answers_like_the_served_file_and_says_so(to: Format, store: ModelStore, data: Path) -> None:
    publish_float(store)

    export = run(store, data, to)

    assert (export.name, export.version, export.format) == (NAME, 1, to)
    assert export.proof.images == 15
    assert export.proof.agreement == 1.0
    assert export.proof.largest_difference < (0.1 if to == "int8" else 0.01)
    assert export.proof.served.accuracy == export.proof.exported.accuracy == 1.0
    assert export.model.is_file()
    assert json.loads((export.folder / "export.json").read_text()) == json.loads(json.dumps(export.to_dict()))
    assert "| accuracy | 1.0000 | 1.0000 |" in (export.folder / "README.md").read_text()
    assert sorted(path.name for path in store.root.parent.iterdir()) == ["exported", "models", "photos"]


@pytest.mark.parametrize("to", ["onnx", "int8"])
def test_pictures_that_cannot_be_read_any_more_are_left_out_of_the_proof_by_hash_and_name(
    to: str, store: ModelStore, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = [picture("red", number)[:-40] for number in (100, 101)]
    publish_float(store, unreadable=damaged)
    for number, content in enumerate(damaged):
        (data / f"damaged-{number}.png").write_bytes(content)

    export = run(store, data, to)

    assert export.proof.images == 15
    assert f"image {image_hash(damaged[0])} ({data / 'damaged-0.png'}) is left out: " in caplog.text


@pytest.mark.parametrize("to", [to for to in FORMATS if to != "openvino"])
def test_labels_and_card_travel_in_the_file_and_the_head_is_no_input(to: Format, store: ModelStore, data: Path) -> None:
    publish_float(store)
    card = artifact.read(store.folder(NAME, 1) / MODEL_FILE).card

    export = run(store, data, to)

    if to == "mobile":
        model = onnx.load_model(export.model)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        inputs = [value.name for value in model.graph.input]
    else:
        session = open_session(export.model, provider="cpu", threads=1).session
        metadata = session.get_modelmeta().custom_metadata_map
        inputs = [value.name for value in session.get_inputs()]
    assert inputs == ["picture" if to == "mobile" else IMAGE]
    assert metadata["regraft.labels"].split("\n") == list(LABELS)
    travelled = parse_card(metadata["regraft.card"])
    assert (travelled.labels, travelled.image, travelled.name) == (card.labels, card.image, card.name)
    assert travelled.backbone.precision == (to if to in {"fp16", "int8"} else "fp32")
    assert (travelled.metrics == card.metrics) == (to in {"onnx", "ort", "triton"})


def test_an_onnx_export_brings_a_file_for_one_picture_alone(store: ModelStore, data: Path) -> None:
    publish_float(store)
    export = run(store, data)
    sessions = [
        open_session(export.folder / file, provider="cpu", threads=1).session
        for file in ("model.batch1.onnx", "model.onnx")
    ]

    one, other = (s.run([PROBABILITIES], {IMAGE: decode_crop(picture("red", 1), SPEC)[None]})[0] for s in sessions)

    assert sessions[0].get_inputs()[0].shape == [1, 8, 8, 3]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_int8_for_another_cpu_is_compared_but_not_timed(store: ModelStore, data: Path) -> None:
    publish_float(store)

    export = run(store, data, "int8", cpu=OTHER_CPU)

    assert export.cpu == OTHER_CPU
    assert (export.proof.exported.ms, export.to_dict()["times_as_fast"]) == (None, None)
    assert f"it is for {OTHER_CPU}, and this machine is {this_cpu()}" in export.notes[0]


def test_int8_for_this_cpu_is_timed(store: ModelStore, data: Path) -> None:
    publish_float(store)

    fields = run(store, data, "int8").to_dict()

    assert fields["cpu"] == this_cpu()
    assert fields["times_as_fast"] == pytest.approx(
        fields["proof"]["served"]["ms"] / fields["proof"]["exported"]["ms"], abs=0.001
    )


def test_where_calculating_in_float16_costs_accuracy_only_the_weights_are_in_it(store: ModelStore, data: Path) -> None:
    publish_float(store, offset=1e5)

    export = run(store, data, "fp16")

    assert export.proof.points_lost == 0
    assert "the arithmetic is float32: calculating in float16 too loses" in export.notes[0]


def test_the_layers_that_hurt_are_left_in_float_and_named(store: ModelStore, data: Path) -> None:
    publish_float(store, loud=1e5)

    export = run(store, data, "int8")

    assert export.proof.points_lost <= 1.3
    assert 1 <= len(export.layers_in_float) <= 2
    assert "are left in float, since int8 loses" in export.notes[0]
    assert f"in float: {', '.join(export.layers_in_float)}" in (export.folder / "README.md").read_text()


@pytest.mark.parametrize("to", ["onnx", "ort", "mobile", "openvino"])
def test_a_version_that_is_int8_stays_so_in_other_formats(to: str, store: ModelStore, data: Path) -> None:
    wanted = int8_already(store, data)

    export = run(store, data, to, wanted)

    assert export.version == 2
    assert (export.proof.agreement, export.cpu) == (1.0, None)
    assert export.proof.largest_difference < 0.05


def test_pictures_that_came_over_grpc_suffice(store: ModelStore) -> None:
    publish_float(store)
    examples = ExamplesStore(store.root / ".examples")
    for label in LABELS:
        for number in range(15):
            examples.add(NAME, picture(label, number), label)
    examples.close()

    assert run(store, None).proof.images == 15


def test_triton_accepts_the_configuration(store: ModelStore, data: Path) -> None:
    publish_float(store)

    export = run(store, data, "triton")

    child = in_a_child(["-c", READ_CONFIG, str(export.folder / NAME / "config.pbtxt")])
    assert child.returncode == 0, child.stderr
    config = json.loads(child.stdout)
    assert (config["name"], config["backend"], config["maxBatchSize"]) == (NAME, "onnxruntime", 32)
    assert config["input"] == [{"name": "image", "dataType": "TYPE_UINT8", "dims": ["8", "8", "3"]}]
    assert [output["name"] for output in config["output"]] == ["probabilities", "embedding", "novelty"]
    assert (export.folder / NAME / "labels.txt").read_text().split() == list(LABELS)
    assert export.model == export.folder / NAME / "1" / "model.onnx"


def test_a_minimal_build_is_told_its_operators(store: ModelStore, data: Path) -> None:
    publish_float(store)

    listed = (run(store, data, "ort").folder / "required_operators.config").read_text()

    assert "Conv" in listed
    assert str(store.root.parent) not in listed


def lose_pictures(store: ModelStore, data: Path) -> str:
    publish_float(store)
    shutil.rmtree(data / "0")
    return NAME


def without_validation_images(store: ModelStore, _data: Path) -> str:
    publish_float(store, holdout=False)
    return NAME


def int8_already(store: ModelStore, data: Path) -> str:
    publish_float(store)
    made = quantise_version(store, NAME, data, examples=str(store.root / ".examples"), cache=data.parent / "cache")
    shutil.rmtree(data.parent / "cache")
    return f"{NAME}:{made.version}"


def much_too_loud(store: ModelStore, _data: Path) -> str:
    publish_float(store, loud=1e5, depth=2)
    return NAME


def there_already(store: ModelStore, _data: Path) -> str:
    publish_float(store)
    (store.root.parent / "exported").mkdir()
    return NAME


def named(wanted: str) -> Callable[[ModelStore, Path], str]:
    def publish_and_name(store: ModelStore, _data: Path) -> str:
        publish_float(store)
        return wanted

    return publish_and_name


def spoil_a_picture(store: ModelStore, data: Path) -> str:
    publish_float(store)
    (data / "0" / "blue-0.png").write_bytes(b"no picture")
    return NAME


# Columns: what is done to the store, the format, flags, the error, its text.
REFUSED: Mapping[str, tuple[Callable[[ModelStore, Path], str], str, dict[str, Any], type[RegraftError], str]] = {
    "no such version": (named("colours:9"), "onnx", {}, NotFoundError, r"has no version 9 .*\(it has: 1\)"),
    "no such model": (named("flowers:1"), "onnx", {}, NotFoundError, "model 'flowers' has no version 1"),
    "no such format": (
        named(NAME),
        "tflite",
        {},
        InvalidRequestError,
        "--to tflite: need one of onnx, fp16",
    ),
    "no such CPU": (named(NAME), "int8", {"cpu": "riscv"}, InvalidRequestError, "--cpu riscv: need one of x86-vnni"),
    "a CPU for float": (named(NAME), "fp16", {"cpu": "arm"}, InvalidRequestError, "--cpu arm: only --to int8"),
    "a budget below 0": (named(NAME), "int8", {"max_drop": -1.0}, InvalidRequestError, "--max-drop -1.0"),
    "no number for a budget": (named(NAME), "onnx", {"max_drop": float("nan")}, InvalidRequestError, "--max-drop nan"),
    "the folder is there": (there_already, "onnx", {}, InvalidRequestError, "--out .*exported: is there already"),
    "no validation images": (without_validation_images, "onnx", {}, PreconditionError, "no validation images, so noth"),
    "images are nowhere": (lose_pictures, "onnx", {}, DatasetError, r"of the version's 15 images .*--data.*--examples"),
    "an image was overwritten": (spoil_a_picture, "onnx", {}, DatasetError, "1 of the version's 15 images"),
    "int8 already": (int8_already, "int8", {}, PreconditionError, "colours:2 is int8 already: --to onnx keeps it so"),
    "it loses too much": (much_too_loud, "int8", {}, TrainingError, r"--to int8 loses .* hurt most, .*layer \d"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_nothing_is_written_where(which: str, store: ModelStore, data: Path) -> None:
    prepare, to, flags, error, complaint = REFUSED[which]
    wanted = prepare(store, data)
    before = {path: path.stat().st_mtime_ns for path in store.root.parent.iterdir() if path != store.root}

    with pytest.raises(error, match=complaint):
        run(store, data, to, wanted, **flags)

    assert {path: path.stat().st_mtime_ns for path in store.root.parent.iterdir() if path != store.root} == before


def test_without_a_folder_the_error_names_the_flag(store: ModelStore) -> None:
    publish_float(store)

    with pytest.raises(DatasetError, match="--data was not given"):
        run(store, None)


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [("mobile", "onnxruntime_extensions", "mobile"), ("openvino", "openvino", "openvino")],
)
def test_a_package_that_is_missing_is_named(to: str, package: str, extra: str, store: ModelStore, data: Path) -> None:
    publish_float(store)
    environment = block(store.root.parent / "blocked", [package], "raise ImportError('not installed')")

    child = in_a_child(["-m", "regraft.cli", *command(store, data, to)], environment)

    assert child.returncode == 1
    assert f"pip install 'regraft[{extra}]'" in child.stderr
    assert not (store.root.parent / "exported").exists()


def command(store: ModelStore, data: Path, to: str, *flags: str) -> list[str]:
    places = ["--out", str(store.root.parent / "exported"), "--data", str(data), "--store", str(store.root)]
    return ["export", NAME, "--to", to, *places, *flags]


def test_the_command_shows_both_files_beside_each_other(store: ModelStore, data: Path) -> None:
    publish_float(store)

    result = CliRunner().invoke(app, command(store, data, "fp16"))

    assert result.exit_code == 0, result.output
    for said in ("colours:1 to fp16, on 15 validation images", "95 % interval", "calibration error", "times as fast"):
        assert said in result.stdout
    assert "the same first label on 100.0%" in result.stdout
    assert "exported/README.md" in result.stdout


def test_the_command_prints_for_machines(store: ModelStore, data: Path) -> None:
    publish_float(store)

    result = CliRunner().invoke(app, command(store, data, "int8", "--cpu", OTHER_CPU, "--json"))

    assert result.exit_code == 0, result.output
    fields = json.loads(result.stdout)
    assert (fields["cpu"], fields["points_lost"], fields["layers_in_float"]) == (OTHER_CPU, 0.0, [])
