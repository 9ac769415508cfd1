import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from regraft.errors import ArtifactError
from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.spec import Crop
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, NOVELTY, PROBABILITIES, Head, backbone_digest
from regraft.model.session import open_session
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, ModelStore
from tests.tiny import COLOURS, EMBEDDING_SIZE, SPEC, picture, tiny_backbone, tiny_head
from tests.training.conftest import as_exported, colour_challenger, colour_features, colour_rows, embed, features_of
from tests.training.tf32 import deep_backbone, in_tf32
from training.evaluation.findings import Findings, Judged
from training.evaluation.metrics import measure
from training.head.features import Features, assemble, load_features
from training.head.fit import fit
from training.versions.publish import PROOF_TOLERANCE, Challenger, Provenance, build, measure_head, prove, publish

LABELS = ("blue", "grey", "red")


def with_mistakes() -> tuple[Features, list[bytes]]:
    """Return features of which some holdout labels are wrong on purpose, and the holdout pictures in row order."""
    rows = [row for label in LABELS for row in colour_rows(label, range(8), held=False)]
    rows += [row for label in LABELS for row in colour_rows(label, range(8, 14), held=True)]
    rows += colour_rows("red", range(14, 17), held=True, called="blue")
    features = features_of(LABELS, rows)
    held = {embed(data).tobytes(): data for data, _, is_held in rows if is_held}
    return features, [held[vector.tobytes()] for vector in features.holdout().embedding]


@pytest.mark.parametrize("arithmetic", ["exact", "in TF32"])
def test_the_proof_holds_for_exact_embeddings_and_not_for_those_that_tf32_rounded(arithmetic: str) -> None:
    """The reason why CUDA is told not to round: the finished file is proven on a CPU, to `PROOF_TOLERANCE`."""
    backbone = deep_backbone()
    embeds = in_tf32(backbone) if arithmetic == "in TF32" else backbone
    session = open_session(embeds.SerializeToString(), provider="cpu", threads=1).session
    pictures = {image_hash(data): (data, label) for label in LABELS for data in map(partial(picture, label), range(6))}
    crops = {name: decode_crop(data, SPEC) for name, (data, _) in pictures.items()}
    embeddings = {name: session.run([EMBEDDING], {IMAGE: crop[None]})[0][0] for name, crop in crops.items()}
    features = assemble(LABELS, [(name, label, False) for name, (_, label) in pictures.items()], embeddings)
    fitted = fit(features)
    challenger = build(as_exported(backbone, "", ""), fitted, features, Provenance("deep", "probe", {}, seed=0))

    def prove_it() -> None:
        prove(challenger, fitted.head, [crops[name] for name in features.sha256], list(features.embedding))

    if arithmetic == "exact":
        prove_it()
    else:
        with pytest.raises(ArtifactError, match="differs from what was measured"):
            prove_it()


def test_a_built_file_is_read_back_whole(tmp_path: Path) -> None:
    features = colour_features(LABELS)
    challenger = colour_challenger(features)
    onnx.save_model(challenger.model, tmp_path / MODEL_FILE)

    read = artifact.read(tmp_path / MODEL_FILE)

    assert read.card == challenger.card
    assert read.head.digest() == fit(features).head.digest()
    assert artifact.ungraft(read.model) == tiny_backbone()


def test_the_card_says_what_the_version_was_made_from() -> None:
    features = colour_features(LABELS, train=9, holdout=4)
    fitted = fit(features)

    card = build(
        as_exported(tiny_backbone(), "a backbone", "its weights"),
        fitted,
        features,
        Provenance("colours", "probe", {"data": "crayons"}, seed=23, parent_version=6),
    ).card

    assert (card.name, card.labels, card.image, card.strategy) == ("colours", LABELS, SPEC, "probe")
    assert (card.backbone.name, card.backbone.weights) == ("a backbone", "its weights")
    assert card.backbone.digest == backbone_digest(tiny_backbone())
    assert (card.embedding_size, card.train_images, card.seed, card.parent_version) == (EMBEDDING_SIZE, 27, 23, 6)
    assert (card.head_digest, card.data_digest) == (fitted.head.digest(), features.digest())
    assert card.temperature == fitted.temperature
    assert (card.novelty_method, card.novelty_threshold) == (fitted.novelty_method, fitted.novelty_threshold)
    assert card.settings == {"data": "crayons", **fitted.choices}
    assert card.libraries["numpy"] == np.__version__
    assert {"regraft", "onnx", "scikit-learn"} <= card.libraries.keys()


def test_the_metrics_in_the_card_are_what_the_file_itself_answers() -> None:
    features, pictures = with_mistakes()
    challenger = colour_challenger(features)
    session = open_session(challenger.model.SerializeToString(), provider="cpu", threads=1).session
    crops = np.stack([decode_crop(data, SPEC) for data in pictures])

    (probabilities,) = session.run([PROBABILITIES], {IMAGE: crops})

    metrics = measure(probabilities, features.holdout().label_index, LABELS)
    assert metrics is not None
    assert challenger.card.metrics is not None
    assert metrics.accuracy < 1
    assert challenger.card.metrics.model_copy(update={"log_loss": 0.0}) == metrics.model_copy(update={"log_loss": 0.0})
    assert challenger.card.metrics.log_loss == pytest.approx(metrics.log_loss, rel=1e-4)


def test_the_novelty_that_the_file_answers_is_the_one_that_the_threshold_was_set_on() -> None:
    features = colour_features(LABELS, train=40)
    challenger = colour_challenger(features)
    session = open_session(challenger.model.SerializeToString(), provider="cpu", threads=1).session
    crops = np.stack([decode_crop(picture(label, number), SPEC) for label in LABELS for number in range(40)])

    (novelty,) = session.run([NOVELTY], {IMAGE: crops})

    assert 0.9 <= (novelty <= challenger.card.novelty_threshold).mean() < 1


def test_without_holdout_images_there_are_no_metrics() -> None:
    features = colour_features(LABELS, holdout=0)

    assert measure_head(fit(features).head, features) is None
    assert colour_challenger(features).card.metrics is None


def test_the_reference_of_drift_is_the_holdout_where_that_is_large_enough() -> None:
    features = colour_features(LABELS, train=20, holdout=40)
    head = fit(features).head

    reference = colour_challenger(features).card.reference

    assert reference is not None
    assert (reference.source, reference.images) == ("holdout", 120)
    held = features.holdout().embedding
    assert np.median(reference.distance) == pytest.approx(np.median(head.novelty(held)), abs=1e-3)
    assert np.mean(reference.confidence) == pytest.approx(head.probabilities(held).max(axis=1).mean(), abs=5e-3)


def test_otherwise_the_reference_is_every_training_image_out_of_fold() -> None:
    features = colour_features(LABELS, train=20, holdout=10)
    fitted = fit(features)

    reference = colour_challenger(features).card.reference

    assert reference is not None
    assert (reference.source, reference.images, list(reference.probabilities)) == ("out of fold", 60, list(LABELS))
    assert list(reference.distance) == pytest.approx(np.sort(fitted.unseen.novelty), abs=1e-4)


def test_a_handful_of_images_is_no_reference() -> None:
    assert colour_challenger(colour_features(LABELS, train=6, holdout=2)).card.reference is None


def blend(share: float) -> bytes:
    """Return a picture between blue and red, on which a head that is only slightly other answers otherwise."""
    level = (1 - share) * np.array(COLOURS["blue"]) + share * np.array(COLOURS["red"])
    return encode_png(np.full((8, 8, 3), level.round(), np.uint8))


def crops_and_embeddings() -> tuple[list[artifact.FloatArray], list[Crop]]:
    pictures = [blend(share) for share in np.linspace(0.1, 0.9, 17)]
    return [embed(data) for data in pictures], [decode_crop(data, SPEC) for data in pictures]


def test_an_honest_file_is_proven() -> None:
    features = colour_features(LABELS)
    embeddings, crops = crops_and_embeddings()

    prove(colour_challenger(features), fit(features).head, crops, embeddings)


def with_head(challenger: Challenger, head: Head) -> Challenger:
    """Return the same version with another head in its file, and a card that fits it."""
    card = challenger.card.model_copy(update={"head_digest": head.digest()})
    return Challenger(artifact.graft(tiny_backbone(), head, card), card, challenger.features)


def shifted(head: Head) -> Head:
    return replace(head, bias=head.bias + np.array([0.05, 0, 0], np.float32))


def swapped(head: Head) -> Head:
    return replace(head, weight=head.weight[::-1].copy(), bias=head.bias[::-1].copy())


@pytest.mark.parametrize("tamper", [shifted, swapped, lambda _head: tiny_head(LABELS)])
def test_a_file_with_another_head_is_not_proven(tamper: Callable[[Head], Head]) -> None:
    features = colour_features(LABELS)
    head = fit(features).head
    embeddings, crops = crops_and_embeddings()

    with pytest.raises(ArtifactError, match="differs from what was measured by"):
        prove(
            with_head(colour_challenger(features), tamper(head)),
            head,
            crops,
            embeddings,
        )


def test_a_file_with_another_backbone_is_not_proven() -> None:
    features = colour_features(LABELS)
    fitted = fit(features)
    backbone = as_exported(tiny_backbone(scale=1.1))
    other = build(backbone, fitted, features, Provenance("colours", "probe", {}, seed=0))
    embeddings, crops = crops_and_embeddings()

    with pytest.raises(ArtifactError, match="differs"):
        prove(other, fitted.head, crops, embeddings)


def test_embeddings_of_other_pictures_prove_nothing() -> None:
    features = colour_features(LABELS)
    embeddings, crops = crops_and_embeddings()

    with pytest.raises(ArtifactError, match="differs"):
        prove(
            colour_challenger(features),
            fit(features).head,
            crops,
            embeddings[::-1],
        )


def test_embeddings_that_are_not_numbers_prove_nothing() -> None:
    features = colour_features(LABELS)
    embeddings, crops = crops_and_embeddings()

    with pytest.raises(ArtifactError, match="differs"):
        prove(
            colour_challenger(features),
            fit(features).head,
            crops[:1],
            [embeddings[0] * np.float32(np.nan)],
        )


def test_the_proof_allows_for_rounding_only() -> None:
    assert 0 < PROOF_TOLERANCE <= 1e-3


def test_a_published_version_has_its_files_and_does_not_serve_yet(tmp_path: Path) -> None:
    store, features = ModelStore(tmp_path), colour_features(LABELS)
    challenger = colour_challenger(features)

    version = publish(store, challenger, left_out=[("stray.txt", "no picture")], who="Ann", why="a test", job="j1")

    folder = store.folder("colours", version)
    assert {path.name for path in folder.iterdir()} == {MODEL_FILE, FEATURES_FILE, REPORT_FILE, REPORT_JSON_FILE}
    assert artifact.read(folder / MODEL_FILE).card == challenger.card
    loaded = load_features(folder / FEATURES_FILE)
    assert loaded.embedding.tobytes() == features.embedding.tobytes()
    assert (loaded.labels, loaded.sha256) == (features.labels, features.sha256)
    assert "stray.txt" in (folder / REPORT_FILE).read_text(encoding="utf-8")
    assert store.champion("colours") is None
    (entry,) = store.history("colours")
    assert (entry.event, entry.version, entry.who, entry.why, entry.job) == ("publish", version, "Ann", "a test", "j1")


def test_what_a_run_found_out_is_published_with_the_version(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    wrong = Judged("a" * 64, "blue/sky.png", "train", "blue", "red", 0.9, 0.1)
    findings = Findings(notes=("crayons only",), label_errors=(wrong,), label_errors_found=1)

    version = publish(
        store,
        colour_challenger(colour_features(LABELS)),
        left_out=[("stray.txt", "no picture")],
        who="Ann",
        why="a test",
        findings=findings,
        thumbnails={wrong.sha256: b"a small picture"},
    )

    folder = store.folder("colours", version)
    page = (folder / REPORT_FILE).read_text(encoding="utf-8")
    assert all(shown in page for shown in ("crayons only", "blue/sky.png", "data:image/jpeg;base64,"))
    report = json.loads((folder / REPORT_JSON_FILE).read_text(encoding="utf-8"))
    assert report["findings"]["label_errors"][0]["file"] == "blue/sky.png"
    assert report["left_out"] == [{"file": "stray.txt", "reason": "no picture"}]


def test_versions_are_numbered_on(tmp_path: Path) -> None:
    store, challenger = ModelStore(tmp_path), colour_challenger(colour_features())

    numbers = [publish(store, challenger, left_out=[], who="Ann", why="a test") for _ in range(3)]

    assert numbers == [1, 2, 3]


def test_a_left_out_file_whose_name_is_not_text_does_not_stop_the_publication(tmp_path: Path) -> None:
    name = os.fsdecode(b"cats/caf\xe9.jpg")  # as an old camera or another system may have written it

    version = publish(
        ModelStore(tmp_path), colour_challenger(colour_features()), left_out=[(name, "empty")], who="Ann", why="a test"
    )

    report = ModelStore(tmp_path).folder("colours", version) / REPORT_FILE
    assert "cats/caf" in report.read_text(encoding="utf-8")


def test_the_same_features_give_the_same_model_but_for_the_time() -> None:
    one, other = colour_challenger(colour_features(LABELS)), colour_challenger(colour_features(LABELS))

    assert one.card.model_copy(update={"created_at": ""}) == other.card.model_copy(update={"created_at": ""})
    assert one.model.graph == other.model.graph
