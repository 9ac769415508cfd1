import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.errors import DatasetError, ExistsError, InvalidRequestError
from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, PROBABILITIES
from regraft.model.card import SCHEMA_VERSION
from regraft.model.session import open_session
from regraft.stores.backbones import BackboneStore
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, ModelStore
from tests.tiny import begin_tiny, picture
from tests.training.conftest import huge_png
from training.backbones.cache import ExportedBackbone
from training.data.file_listing import shown_path
from training.head.features import load_features
from training.retrain.data import sources_of
from training.settings import TrainSettings
from training.strategies.context import SilentListener
from training.train import TrainResult, train

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BACKBONE = "timm/test_resnet"
LABELS = ("blue", "green", "red")


@pytest.fixture(autouse=True)
def cache(backbones_folder: Path, exported: Callable[[str], ExportedBackbone], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every run find the backbone, which was exported once."""
    exported(BACKBONE)
    monkeypatch.setenv("REGRAFT_CACHE", str(backbones_folder))
    return backbones_folder


class Heard(SilentListener):
    """Keeps what it hears of stages."""

    def __init__(self, told: list[tuple[str, int, int]]) -> None:
        self._told = told

    def progress(self, stage: str, done: int, total: int) -> None:
        self._told.append((stage, done, total))


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def colours(counts: Mapping[str, int], first: int = 0) -> dict[str, bytes]:
    """Return so many pictures of each colour in class folders."""
    return {
        f"{label}/{number}.png": picture(label, number, side_px=24)
        for label, count in counts.items()
        for number in range(first, first + count)
    }


def run(data: Path, store: Path, **settings: object) -> TrainResult:
    return train(TrainSettings(data, store=store, backbone=BACKBONE, weights="none", **settings))  # type: ignore[arg-type]  # fields by name


def test_training_publishes_a_version_and_promotes_it(tmp_path: Path) -> None:
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 15)))

    result = run(data, tmp_path / "models")

    store = ModelStore(tmp_path / "models")
    assert (result.name, result.version) == ("crayons", 1)
    assert store.champion("crayons") == 1
    assert result.path == store.folder("crayons", 1) / MODEL_FILE
    files = {path.name for path in store.folder("crayons", 1).iterdir()}
    assert files == {MODEL_FILE, FEATURES_FILE, REPORT_FILE, REPORT_JSON_FILE}
    assert [(entry.event, entry.version) for entry in store.history("crayons")] == [("publish", 1), ("promote", 1)]
    (kept,) = BackboneStore(tmp_path / "models").list()
    assert (kept.name, kept.digest) == (f"{BACKBONE}-random", result.card.backbone.digest)


def test_the_card_describes_the_file_and_the_run(tmp_path: Path, exported: Callable[[str], ExportedBackbone]) -> None:
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 15)))

    result = run(data, tmp_path / "models", name="my-model", seed=0)

    card, backbone = result.card, exported(BACKBONE)
    assert artifact.read(result.path).card == card
    assert (card.schema_version, card.name, card.labels) == (SCHEMA_VERSION, "my-model", LABELS)
    assert (card.backbone.name, card.backbone.weights) == (BACKBONE, "random, seed 0")
    assert (card.backbone.digest, card.image, card.embedding_size) == (backbone.digest, backbone.spec, 96)
    assert (card.strategy, card.seed, card.parent_version, card.train_images) == ("probe", 0, None, 36)
    assert card.settings["data"] == "crayons"
    assert card.settings["split"] == "20% of each class by image hash"
    assert card.metrics is not None
    assert (card.metrics.images, card.metrics.accuracy) == (9, 1)
    assert {"regraft", "torch", "timm"} <= card.libraries.keys()
    recipe = card.recipe
    assert (recipe["strategy"], recipe["published"]) == ("probe", "probe")
    assert (recipe["precision"], recipe["seed"]) == ("fp32", 0)
    assert (recipe["backbone"], recipe["weights"], recipe["views"]) == (BACKBONE, "random, seed 0", 0)
    assert (recipe["resize"], recipe["image_px"]) == (backbone.spec.resize, backbone.spec.crop_px)
    assert {name: recipe[f"{name}_version"] for name in card.libraries} == card.libraries
    assert "lr" not in recipe  # nothing but the head learned


def wide(label: str, number: int) -> bytes:
    """Return a wide picture of grey whose colour is at its ends, where no crop of the middle sees it."""
    with Image.open(io.BytesIO(picture(label, number, side_px=16))) as small:
        pixels = np.full((16, 64, 3), 120, np.uint8)
        pixels[:, :16], pixels[:, -16:] = np.asarray(small), np.asarray(small)[:, ::-1]
    return encode_png(pixels)


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_pictures_are_prepared_by_the_rule_that_was_asked_for_and_the_file_says_so(
    tmp_path: Path, resize: str, exported: Callable[[str], ExportedBackbone]
) -> None:
    files = {f"{label}/{number}.png": wide(label, number) for label in ("blue", "red") for number in range(12)}
    data, own = write(tmp_path / "wide", files), exported(BACKBONE)

    result = run(data, tmp_path / "models", resize=resize, views=1)

    card = artifact.read(result.path).card
    side = own.spec.crop_px
    assert (card.image.resize, card.image.resize_px, card.image.crop_px) == (resize, side, side)
    assert card.backbone.digest == own.digest  # the very same network: one session serves all three
    assert BackboneStore(tmp_path / "models").find(own.digest).image == own.spec  # further models begin with its own
    assert card.recipe["resize"] == resize
    features = load_features(result.path.with_name(FEATURES_FILE))
    session = open_session(result.path, provider="cpu", threads=1).session
    crops = {image_hash(data): decode_crop(data, card.image) for data in files.values()}
    seen = session.run([EMBEDDING], {IMAGE: np.stack([crops[sha256] for sha256 in features.sha256])})[0]
    np.testing.assert_allclose(seen, features.embedding, rtol=1e-4, atol=1e-5)
    assert f"{resize} to {side} px" in (result.path.with_name(REPORT_FILE)).read_text()


def test_the_metrics_are_those_of_the_finished_file_on_the_holdout_pictures(tmp_path: Path) -> None:
    files = colours(dict.fromkeys(LABELS, 12))
    split = {f"train/{name}": data for name, data in files.items()}
    split |= {f"val/{name}": data for name, data in colours(dict.fromkeys(LABELS, 4), first=50).items()}
    split |= {f"val/blue/mistake{number}.png": picture("red", 90 + number, side_px=24) for number in range(3)}
    data = write(tmp_path / "crayons", split)

    result = run(data, tmp_path / "models")

    session = open_session(result.path, provider="cpu", threads=1).session
    held = sorted((data / "val").rglob("*.png"))
    crops = np.stack([decode_crop(path.read_bytes(), result.card.image) for path in held])
    (probabilities,) = session.run([PROBABILITIES], {IMAGE: crops})
    right = [LABELS[row.argmax()] == path.parent.name for row, path in zip(probabilities, held, strict=True)]
    assert result.card.metrics is not None
    assert result.card.metrics.images == len(held) == 15
    assert result.card.metrics.accuracy == pytest.approx(np.mean(right)) == pytest.approx(0.8)
    assert result.split == "folders: train on train; holdout val"


def test_the_result_has_everything_that_the_json_output_promises(tmp_path: Path) -> None:
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 15)) | {"stray.txt": b"stray"})

    result = run(data, tmp_path / "models")

    fields = json.loads(json.dumps(result.to_dict()))
    assert (fields["name"], fields["version"], fields["path"]) == ("crayons", 1, str(result.path))
    assert (fields["images"], fields["train_images"], fields["holdout_images"]) == (45, 36, 9)
    assert (fields["accuracy"], fields["macro_f1"]) == (1, 1)
    low, high = fields["accuracy_interval"]
    assert 0.6 < low < high == 1
    assert fields["stage_seconds"].keys() == {"scan", "export", "embed", "fit", "report", "occlusion", "publish"}
    assert fields["seconds"] == pytest.approx(sum(fields["stage_seconds"].values()), abs=0.01)
    assert fields["labels"] == list(LABELS)
    assert [entry["label"] for entry in fields["per_class"]] == list(LABELS)
    assert fields["head_digest"] == result.card.head_digest
    assert fields["backbone_digest"] == result.card.backbone.digest
    assert fields["left_out"] == [{"file": str(data / "stray.txt"), "reason": "not inside a class folder"}]


def test_invariant_7_a_second_run_gives_the_same_head_bytes_with_and_without_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 15)))
    first = run(data, tmp_path / "models")
    cached = run(data, tmp_path / "models")
    shutil.copytree(cache / "backbones", tmp_path / "cache" / "backbones")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    renamed = write(
        tmp_path / "renamed", {f"{n[:-4]}-copy.png": d for n, d in colours(dict.fromkeys(LABELS, 15)).items()}
    )

    fresh = run(renamed, tmp_path / "models", name="crayons")

    assert [first.version, cached.version, fresh.version] == [1, 2, 3]
    assert ModelStore(tmp_path / "models").champion("crayons") == 3
    assert len({result.card.head_digest for result in (first, cached, fresh)}) == 1
    assert len({result.card.data_digest for result in (first, cached, fresh)}) == 1


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (40, 30), (200, 40, 40))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    return encoded(RED, "JPEG", exif=exif)


def palette_with_alpha() -> bytes:
    image = RED.convert("P")
    return encoded(image, "PNG", transparency=0)


def animated_gif() -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


UNUSUAL = {
    "animated.gif": animated_gif(),
    "cmyk.jpg": encoded(RED.convert("CMYK"), "JPEG"),
    "grey16.png": encoded(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG"),
    "palette-alpha.png": palette_with_alpha(),
    "alpha.png": encoded(Image.new("RGBA", (20, 20), (200, 40, 40, 100)), "PNG"),
    "grey-alpha.png": encoded(Image.new("LA", (20, 20), (90, 100)), "PNG"),
    "black-and-white.png": encoded(Image.new("1", (20, 20), 1), "PNG"),
    "exif-rotated.jpg": rotated_by_exif(),
    "one-pixel.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "very-wide.png": encoded(Image.new("RGB", (2000, 1), "red"), "PNG"),
    "picture.webp": encoded(RED, "WEBP"),
    "picture.BMP": encoded(RED, "BMP"),
    "picture.tiff": encoded(RED, "TIFF"),
    "jpeg-called.png": encoded(NOISE, "JPEG"),
    "no suffix": encoded(RED, "PNG"),
}

# The reason must say this.
UNUSABLE: dict[str, tuple[bytes, str]] = {
    "text.jpg": (b"this is not a picture", "not a picture in a format that is read here"),
    "truncated.jpg": (encoded(NOISE, "JPEG")[:2000], "cannot be decoded"),
    "empty.jpg": (b"", "the image is empty (0 bytes)"),
    "huge.png": (huge_png(), "50000 x 50000 px; the limit is"),
    "grey32.tiff": (encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "pixels of 32 bits"),
    "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read here: render it as PNG"),
}


def test_unusual_pictures_are_used_and_unusable_files_left_out_with_their_reasons(tmp_path: Path) -> None:
    twice = picture("grey", 1, side_px=24)
    data = write(
        tmp_path / "crayons",
        colours(dict.fromkeys(LABELS, 10))
        | {f"red/{name}": content for name, content in UNUSUAL.items()}
        | {f"blue/{name}": content for name, (content, _) in UNUSABLE.items()}
        | {"red/twice.png": twice, "green/twice.png": twice, "green/copy.png": picture("green", 3, side_px=24)},
    )

    result = run(data, tmp_path / "models")

    reasons = {str(entry.file.relative_to(data)): entry.reason for entry in result.left_out}
    for name, (_, reason) in UNUSABLE.items():
        assert reason in reasons.pop(f"blue/{name}")
    assert reasons == {
        "red/twice.png": "the same picture under 2 labels: green, red",
        "green/twice.png": "the same picture under 2 labels: green, red",
        "green/copy.png": "the same picture as green/3.png",
    }
    assert result.card.metrics is not None
    assert result.card.train_images + result.card.metrics.images == 30 + len(UNUSUAL)
    assert len(load_features(result.path.parent / FEATURES_FILE).sha256) == 30 + len(UNUSUAL)
    report = (result.path.parent / REPORT_FILE).read_text(encoding="utf-8")
    assert all(f"blue/{name}" in report for name in UNUSABLE)


def test_a_picture_over_the_limits_of_the_environment_is_left_out_even_if_its_embedding_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = picture("red", 1, side_px=60)
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 5)) | {"red/large.png": large})
    before = run(data, tmp_path / "models")
    monkeypatch.setenv("REGRAFT_MAX_IMAGE_PIXELS", "3599")

    after = run(data, tmp_path / "models")

    assert before.left_out == ()
    (left_out,) = after.left_out
    assert left_out.file == data / "red/large.png"
    assert "60 x 60 px; the limit is 3,599 pixels in all (REGRAFT_MAX_IMAGE_PIXELS)" in left_out.reason
    assert image_hash(large) in left_out.reason


def test_a_left_out_file_whose_name_is_not_text_does_not_stop_the_training(tmp_path: Path) -> None:
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 5)))
    (data / "red" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"no picture")

    result = run(data, tmp_path / "models")

    assert len(result.left_out) == 1
    assert result.version == 1


def test_a_folder_whose_name_is_not_text_can_be_trained_on_under_a_name(tmp_path: Path) -> None:
    data = write(tmp_path / os.fsdecode(b"caf\xe9"), colours(dict.fromkeys(LABELS, 5)))

    assert run(data, tmp_path / "models", name="cafe").version == 1


def test_the_folder_one_stands_in_gives_its_name_to_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 5))))

    assert run(Path(), tmp_path / "models").name == "crayons"


def test_classes_too_small_for_a_holdout_are_trained_without_being_measured(tmp_path: Path) -> None:
    data = write(tmp_path / "crayons", colours({"blue": 2, "red": 2}))

    result = run(data, tmp_path / "models")

    assert result.card.metrics is None
    fields = result.to_dict()
    assert (fields["accuracy"], fields["accuracy_interval"], fields["macro_f1"], fields["per_class"]) == (
        None,
        None,
        None,
        [],
    )
    assert (fields["train_images"], fields["holdout_images"]) == (4, 0)
    assert fields["split"] == "nothing is held out (20% of each class by image hash)"
    assert result.card.settings["split"] == fields["split"]
    assert fields["notes"][-1].startswith("Nothing was held out, so nothing says how good it is on new pictures")


def test_a_list_is_trained_on_and_its_groups_weights_and_sources_are_kept_with_the_version(tmp_path: Path) -> None:
    write(tmp_path / "photos", colours({"blue": 8, "red": 8}))
    lines = [
        f"{c}/{n}.png,{c},{'val' if n < 2 else 'train'},{c}{n // 2},ward {n % 2},{n + 1}"
        for c in ("blue", "red")
        for n in range(8)
    ]
    (tmp_path / "photos/list.csv").write_text(
        "\n".join(["image,class,set,patient,site,weight", *lines, "nowhere.png,red"])
    )

    result = run(tmp_path / "photos/list.csv", tmp_path / "models")

    assert (result.name, result.split) == ("list", "list.csv: train on train; holdout val")
    assert next(entry.reason for entry in result.left_out if "no file" in entry.reason).startswith(
        "line 18: there is no"
    )
    features = load_features(result.path.with_name(FEATURES_FILE))
    where = {image_hash(picture(c, n, side_px=24)): (c, n) for c in ("blue", "red") for n in range(8)}
    assert features.sha256
    for sha256, group, weight, source in zip(
        features.sha256, features.group, features.weight, features.source, strict=True
    ):
        colour, number = where[sha256]
        assert (weight, source) == (number + 1, f"ward {number % 2}")
        alike = [
            other == group
            for other, name in zip(features.group, features.sha256, strict=True)
            if where[name][0] == colour and where[name][1] // 2 == number // 2
        ]
        assert all(alike)
    assert set(sources_of(features, [])) == {"ward 0", "ward 1"}


def nothing_happened(store: Path) -> bool:
    return not list(store.rglob("*.onnx"))


def test_a_folder_without_a_single_picture_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "notes", {f"{label}/{n}.txt": f"{label}{n}".encode() for label in "ab" for n in range(3)})

    with pytest.raises(DatasetError, match="no file can be read as an image; the first one: not a picture"):
        run(data, tmp_path / "models")

    assert nothing_happened(tmp_path / "models")


def test_a_class_that_has_only_broken_pictures_is_refused_with_the_files(tmp_path: Path) -> None:
    broken = {f"red/{number}.jpg": f"broken {number}".encode() for number in range(5)}
    data = write(tmp_path / "crayons", colours({"blue": 5, "green": 5}) | broken)

    with pytest.raises(DatasetError, match=r"class 'red' has 0 usable training image\(s\)") as error:
        run(data, tmp_path / "models")

    assert str(error.value).count("not a picture in a format") == 3
    assert "and 2 more" in str(error.value)
    assert nothing_happened(tmp_path / "models")


def test_one_class_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    data = write(tmp_path / "crayons", colours({"blue": 5}))

    with pytest.raises(DatasetError, match="only one class, 'blue'; need at least two"):
        train(
            TrainSettings(data, store=tmp_path / "models", backbone=BACKBONE, weights="none"),
            Heard(told),
        )

    assert {stage for stage, _, _ in told} == {"scan"}


@pytest.mark.parametrize("name", ["my model", "../outside", ".hidden", "a" * 65])
def test_a_name_that_no_model_can_have_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="model name"):
        run(tmp_path / "nowhere", tmp_path / "models", name=name)

    assert nothing_happened(tmp_path / "models")


def test_a_name_in_the_trash_is_refused_before_any_work(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    begin_tiny(store, "crayons")
    store.folders.delete("crayons", who="Ann", why="")

    with pytest.raises(ExistsError, match="in the trash: `regraft models restore crayons` brings it back"):
        run(tmp_path / "nowhere", store.root, name="crayons")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: not a folder"):
        run(tmp_path / "nowhere", tmp_path / "models")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"backbone": "resnet19", "weights": "none"}, "--backbone"), ({"weights": "nowhere.pth"}, "--weights")],
)
def test_a_backbone_or_weights_that_do_not_exist_are_refused(
    tmp_path: Path, settings: dict[str, str], complaint: str
) -> None:
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 5)))

    with pytest.raises(InvalidRequestError, match=f"^{complaint}: "):
        train(TrainSettings(data, store=tmp_path / "models", **({"backbone": BACKBONE} | settings)))  # type: ignore[arg-type]  # fields by name

    assert nothing_happened(tmp_path / "models")


def in_order(stages: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(stages))


def test_progress_is_told_of_every_stage(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    data = write(tmp_path / "crayons", colours(dict.fromkeys(LABELS, 5), first=700))

    train(
        TrainSettings(data, store=tmp_path / "models", backbone=BACKBONE, weights="none"),
        Heard(told),
    )

    assert in_order(stage for stage, _, _ in told) == ["scan", "export", "embed", "fit"]
    for stage in ("scan", "export", "embed", "fit"):
        _, done, total = [entry for entry in told if entry[0] == stage][-1]
        assert done == total


@pytest.mark.parametrize(
    ("folder", "name"),
    [("my photos", "my-photos"), ("été 2026", "été-2026"), ("热狗", "热狗"), (".hidden", "hidden"), ("a_b.c", "a_b.c")],
)
def test_a_model_without_a_name_is_called_after_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    data = write(tmp_path / folder, colours(dict.fromkeys(LABELS, 15)))

    assert run(data, tmp_path / "models").name == name


def test_a_folder_that_no_model_can_be_called_after_is_refused_before_any_work(tmp_path: Path) -> None:
    data = write(tmp_path / "🌭", colours(dict.fromkeys(LABELS, 15)))

    with pytest.raises(InvalidRequestError, match="--name"):
        run(data, tmp_path / "models")


def test_the_report_shows_paths_from_the_data_on_and_where_the_model_looked(tmp_path: Path) -> None:
    files = {f"train/{name}": data for name, data in colours(dict.fromkeys(LABELS, 12)).items()}
    files |= {f"val/{name}": data for name, data in colours(dict.fromkeys(LABELS, 4), first=50).items()}
    files |= {f"val/blue/mistake{number}.png": picture("red", 90 + number, side_px=24) for number in range(3)}
    files |= {"train/red/empty.png": b""}
    data = write(tmp_path / "crayons", files)
    told: list[tuple[str, int, int]] = []

    settings = TrainSettings(data, store=tmp_path / "models", backbone=BACKBONE, weights="none")
    result = train(settings, Heard(told))

    assert sorted(picture.file for picture in result.findings.top_losses) == [
        f"val/blue/mistake{number}.png" for number in range(3)
    ]
    page = result.path.with_name(REPORT_FILE).read_text()
    assert page.count('alt="where the model looked"') == 3
    assert ("occlusion", 3, 3) in told
    report = json.loads(result.path.with_name(REPORT_JSON_FILE).read_text())
    assert report["findings"]["train_images"] == dict.fromkeys(LABELS, 12)
    assert [entry["file"] for entry in report["left_out"]] == ["train/red/empty.png"]
    assert str(tmp_path) not in page


def test_files_elsewhere_are_shown_by_their_names_alone(tmp_path: Path) -> None:
    data = write(tmp_path / "photos", {"list.csv": b"", "red/a.png": b""})

    assert shown_path(data / "red" / "a.png", data) == "red/a.png"
    assert shown_path(data / "red" / "a.png", data / "list.csv") == "red/a.png"
    assert shown_path(Path("/srv/examples/0123abcd"), data) == "0123abcd"
