"""The story of ``regraft refresh``: a training run on all that a model knows by now, through the gate of retrains.

A retrain changes the head alone; a refresh may bring another backbone, or a fine-tuned one.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from regraft.artifact import FloatArray
from regraft.card import BackboneCard
from regraft.errors import DatasetError, InvalidRequestError
from regraft.examples import ExamplesStore
from regraft.files import storage_errors
from regraft.interrupted import job_lock
from regraft.store import GateMode, ModelStore
from regraft.user import user_name
from training.catalogue import own_weights
from training.dataset import Dataset, LabelledImage, check_trainable, scan
from training.diagnose import thumbnails
from training.features import Embedder
from training.findings import Findings
from training.objections import Limits
from training.pretrained import weights_origin
from training.retrain_data import Champion, RetrainData, merge_rows, new_rows, read_champion, sources_of
from training.retrain_end import reason_of
from training.retrain_gate import golden_answers, judge_challenger
from training.settings import TrainSettings
from training.strategy import Context, Listener, Made, Silent
from training.train import RUNS_FOLDER, challenge, look_into, make, tuner_for
from training.verdict import Verdict
from training.version import Challenger, publish

_PICTURES: Final = "pictures"


@dataclass(frozen=True)
class Network:
    """What to train, as the flags of ``regraft train`` say it."""

    backbone: str
    weights: str
    precision: str
    image_px: int | None


def network_of(
    store: ModelStore,
    name: str,
    *,
    backbone: str = "",
    weights: str = "",
    precision: str = "",
    image_px: int | None = None,
) -> Network:
    """Return what was asked for, and what the champion is where nothing was.

    Its weights are those of the original network, also where it was fine-tuned; another backbone takes its own default,
    and its own size of pictures.

    Raises:
        PreconditionError: there is no champion.
        InvalidRequestError: the champion's weights come from a file that is not at hand.
    """
    champion = read_champion(store, name).artifact.card
    card, is_the_same = champion.backbone, backbone in ("", champion.backbone.name)
    if not weights:
        weights = weights_of(card) if is_the_same else "default"
    if not image_px and is_the_same:
        image_px = champion.image.crop_px
    return Network(backbone or card.name, weights, precision or card.precision, image_px)


def weights_of(card: BackboneCard) -> str:
    """Return where the weights that a card tells of can be had, see `training.pretrained.weights_origin`.

    Raises:
        InvalidRequestError: they come from a file that is not at hand.
    """
    if card.weights.startswith("random,"):
        return "none"
    if card.weights.startswith("file "):
        file = own_weights(card.name)
        content = weights_origin(card.name, str(file), seed=0).rpartition(" ")[2] if file else None
        if content is None or content not in card.weights:
            raise InvalidRequestError(
                f"--weights: the champion's come from {card.weights}, which REGRAFT_WEIGHTS lacks: name the file"
            )
    return "default"


@dataclass(frozen=True)
class Refreshed:
    """What came of it; ``promoted`` tells whether it is the champion now."""

    name: str
    version: int
    parent_version: int
    strategy: str
    verdict: Verdict
    promoted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**vars(self), "verdict": self.verdict.to_dict()}


def refresh(
    settings: TrainSettings,
    examples: ExamplesStore,
    *,
    cache: Path,
    gate: GateMode = GateMode.AUTO,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    listener: Listener | None = None,
) -> Refreshed:
    """Train anew on the original pictures and the examples, and let the gate decide.

    Args:
        settings: as for `training.train`; ``name`` is that of the model, ``data`` has the pictures that its versions
            were trained on and, where there are more in it, those too.
        examples: that people labelled since.
        cache: of exported backbones and embeddings.
        gate: whether a blessed version goes live.
        limits: of the gate.
        listener: hears how far the run is.

    Raises:
        PreconditionError: there is no champion to replace, or it is being retrained.
        DatasetError: a picture of the champion is missing, or there is too little to train on.
        StorageError: a store refused.
    """
    store, name = ModelStore(settings.store), settings.name
    context = Context(settings, cache, settings.store / RUNS_FOLDER / name, listener or Silent())
    with job_lock(examples, name), tuner_for(settings) as tuner:
        champion = read_champion(store, name)
        dataset = collect(champion, settings.data, examples, name, context)
        made = make(dataset, context, tuner)
        challenger = challenge(made, name, settings, parent_version=champion.version)
        judged = _judge(champion, made, examples, store, context, limits)
        verdict = judged.verdict
        assert verdict is not None  # it was judged just now
        who, why = user_name(), reason_of("refresh", verdict, gate)
        version = _publish(store, challenger, made, judged, who, why)
        promoted = gate is GateMode.OFF or (verdict.blessed and gate is GateMode.AUTO)
        if promoted:
            store.promote(name, version, who=who, why=why, expected=champion.version)
    return Refreshed(name, version, champion.version, challenger.card.strategy, verdict, promoted)


def _publish(store: ModelStore, challenger: Challenger, made: Made, judged: Findings, who: str, why: str) -> int:
    findings = replace(
        look_into(made),
        verdict=judged.verdict,
        changes=judged.changes,
        doubted=judged.doubted,
        doubted_found=judged.doubted_found,
    )
    return publish(
        store,
        challenger,
        left_out=[(entry.name, entry.reason) for entry in made.dataset.left_out],
        who=who,
        why=why,
        findings=findings,
        thumbnails=thumbnails(findings, {image.sha256: image.path for image in made.dataset.images}),
    )


def collect(champion: Champion, data: Path, examples: ExamplesStore, name: str, context: Context) -> Dataset:
    """Return every picture that a model knows by now, with its label in force and its split.

    Pictures of ``data`` that are new join, those that were removed as examples do not.

    Raises:
        DatasetError: a picture of the champion is neither in ``data`` nor among the examples.
    """
    found = scan(data, context.progress)
    here = {image.sha256: image.path for image in found.images}
    sent = examples.list(name)
    removed = examples.removed(name)
    known = removed.union(champion.features.sha256)
    labels = {image.sha256: image.label for image in found.images if image.sha256 not in known}
    labels |= {example.sha256: example.label for example in sent}
    rows = merge_rows(champion.features, list(labels.items()), removed)
    images = [
        LabelledImage(here.get(sha256) or _fetched(examples, sha256, context), sha256, label, held)
        for sha256, label, held in rows
    ]
    missing = [image for image in images if not image.path.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(images)} pictures are neither in {data} nor among the examples: all of them have "
            f"to be embedded anew; the first is {missing[0].sha256}"
        )
    first = champion.features.labels
    ordered = (*first, *sorted({label for _, label, _ in rows} - set(first)))
    split = f"as in version {champion.version}, new ones by image hash"
    dataset = Dataset(ordered, tuple(images), found.left_out, split)
    check_trainable(dataset, data)
    return dataset


def _judge(
    champion: Champion, made: Made, examples: ExamplesStore, store: ModelStore, context: Context, limits: Limits
) -> Findings:
    features = made.features
    data = RetrainData(
        features,
        None,
        sources_of(features, examples.list(context.settings.name)),
        new_rows(champion.features, features),
        (),
    )
    before = _champion_answers(champion, made, examples, context)
    backbone = made.backbone
    looks = []
    if golden := store.golden(context.settings.name):
        embedder = Embedder.open(backbone.model.SerializeToString(), backbone.spec, backbone.key, backbone.precision)
        looks = golden_answers(golden, embedder, made.fitted.head, features.labels)
    return judge_challenger(champion, before, data, made.fitted, limits, looks)


def _champion_answers(champion: Champion, made: Made, examples: ExamplesStore, context: Context) -> FloatArray:
    """Return what the champion, on its own backbone, says of the holdout."""
    names = made.features.holdout().sha256
    paths = {image.sha256: image.path for image in made.dataset.images}
    embeddings = dict(zip(champion.features.sha256, champion.features.embedding, strict=True))
    missing = {sha256: paths[sha256] for sha256 in names if sha256 not in embeddings}
    if missing:
        embeddings |= champion.embedder.embed(missing, examples.embeddings, context.progress)[0]
    size = champion.features.embedding.shape[1]
    rows = np.array([embeddings[sha256] for sha256 in names], np.float32).reshape(len(names), size)
    return champion.artifact.head.probabilities(rows)


def _fetched(examples: ExamplesStore, sha256: str, context: Context) -> Path:
    """Return where an example's picture is on this disk; one in an object store is copied."""
    file = examples.image_file(sha256)
    if isinstance(file, Path):
        return file
    path = context.runs / _PICTURES / sha256
    if not path.exists():
        with suppress(OSError), storage_errors(f"cannot copy example {sha256}"):
            data = file.read_bytes()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return path
