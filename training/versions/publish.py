"""Publication of a fitted head as a version: card, file, proof."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx

from regraft.errors import ArtifactError
from regraft.files import utc_now
from regraft.image.spec import Crop
from regraft.model.artifact import EMBEDDING, IMAGE, PROBABILITIES, Head, embedding_size, graft, read
from regraft.model.card import (
    SCHEMA_VERSION,
    Abstention,
    Choice,
    KeptState,
    Metrics,
    ModelCard,
    RecipeValue,
    Reference,
)
from regraft.model.drift import reference_of
from regraft.model.fitted_pictures import unseen_arrays
from regraft.model.session import open_session
from regraft.stores.images import ImageFile
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, STATE_FILE, ModelStore
from training.backbones.cache import ExportedBackbone
from training.data.crops import readable_crops
from training.evaluation.findings import NOTHING_FOUND, Findings
from training.evaluation.metrics import measure
from training.evaluation.report.page import NO_PICTURES, LeftOutFile, render, report_json
from training.gate.anchor import Anchor
from training.head.abstention import abstention
from training.head.additional import Additional
from training.head.features import Features
from training.head.fit import REFIT_SETTINGS, FittedHead

_LIBRARIES: Final = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "scikit-learn", "torch", "torchvision", "timm")
PROOF_TOLERANCE: Final = 1e-3
EMBEDDING_TOLERANCE: Final = 1e-2
"""Of the largest value: rounding grows with the activations."""
_PROOF_IMAGES: Final = 8
NO_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({})
_REFERENCE_IMAGES: Final = 100
"""Holdout images that make a distribution; the heads of the folds are a little less sure than the one that serves."""


@dataclass(frozen=True)
class Challenger:
    """A version that is ready to be published.

    Attributes:
        model: the whole file.
        card: what it holds.
        features: what the next retrain will start from.
        additional: rows beside them that the head was fitted on too.
        anchor: what the best versions up to this one answered; None of one that begins anew.
        state: the file of the weights that torch goes on from; None where none is kept with this version.
        unseen: arrays of the out-of-fold answers, see `regraft.model.fitted_pictures`.
    """

    model: onnx.ModelProto
    card: ModelCard
    features: Features
    additional: Additional | None = None
    anchor: Anchor | None = None
    state: bytes | None = None
    unseen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Provenance of a version, for its card.

    Attributes:
        name: of the model.
        strategy: how it was made.
        settings: of the run; ``target_error`` among them asks for a threshold of abstention.
        seed: of everything that was random.
        recipe: every number that the run went by.
        parent_version: the champion before.
        choice: why this strategy and not another, where there were two.
        labels_as_of: as in `ModelCard`.
    """

    name: str
    strategy: str
    settings: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, RecipeValue] = field(default_factory=dict)
    parent_version: int | None = None
    choice: Choice | None = None
    labels_as_of: str = ""

    @staticmethod
    def of_refit(
        name: str, strategy: str, parent: ModelCard, version: int, settings: Mapping[str, Any] = NO_SETTINGS
    ) -> "Provenance":
        """Return that of a version which refits a parent's head."""
        refitted: dict[str, Any] = {each: parent.settings[each] for each in REFIT_SETTINGS if each in parent.settings}
        asked = {**refitted, **settings}
        return Provenance(name, strategy, asked, parent.seed, parent.recipe, version, labels_as_of=parent.labels_as_of)


def build(
    backbone: ExportedBackbone,
    fitted: FittedHead,
    features: Features,
    provenance: Provenance,
    *,
    additional: Additional | None = None,
    threshold: Abstention | None = None,
) -> Challenger:
    """Make the model file of a fitted head, with its card.

    ``threshold`` is the abstention of a version whose very head this is.
    """
    state = backbone.state
    card = ModelCard(
        schema_version=SCHEMA_VERSION,
        name=provenance.name,
        labels=features.labels,
        image=backbone.spec,
        backbone=backbone.card.model_copy(update={"state": _kept_state(state) if isinstance(state, bytes) else state}),
        embedding_size=embedding_size(backbone.model),
        head_digest=fitted.head.digest(),
        temperature=fitted.temperature,
        novelty_method=fitted.novelty_method,
        novelty_threshold=fitted.novelty_threshold,
        strategy=provenance.strategy,
        settings={**provenance.settings, **fitted.choices},
        recipe=dict(provenance.recipe),
        seed=provenance.seed,
        data_digest=features.digest(),
        train_images=int((~features.is_holdout).sum()),
        parent_version=provenance.parent_version,
        metrics=measure_head(fitted.head, features),
        reference=_reference(fitted, features),
        abstention=threshold or abstention(fitted.unseen, features, provenance.settings.get("target_error")),
        choice=provenance.choice,
        libraries=library_versions(),
        created_at=utc_now(),
        labels_as_of=provenance.labels_as_of,
    )
    model = graft(backbone.model, fitted.head, card)
    rows, probabilities = fitted.unseen.rows, fitted.unseen.probabilities
    unseen = unseen_arrays(rows, probabilities, features.train().label_index)
    return Challenger(
        model, card, features, additional, state=state if isinstance(state, bytes) else None, unseen=unseen
    )


def _kept_state(state: bytes) -> KeptState:
    return KeptState(size_bytes=len(state), sha256=hashlib.sha256(state).hexdigest())


def measure_head(head: Head, features: Features) -> Metrics | None:
    """Measure a head on the holdout rows."""
    holdout = features.holdout()
    return measure(head.probabilities(holdout.embedding), holdout.label_index, features.labels, holdout.group)


def _reference(fitted: FittedHead, features: Features) -> Reference | None:
    """Summarise answers on the holdout, or out of fold."""
    holdout, unseen = features.holdout(), fitted.unseen
    if len(holdout.sha256) >= min(_REFERENCE_IMAGES, len(unseen.rows)):
        of_holdout = fitted.head.probabilities(holdout.embedding), fitted.head.novelty(holdout.embedding)
        return reference_of(*of_holdout, features.labels, "holdout")
    return reference_of(unseen.probabilities, unseen.novelty, features.labels, "out of fold")


def prove(challenger: Challenger, head: Head, crops: Sequence[Crop], embeddings: Sequence[Any]) -> None:
    """Compare the finished file's answers on real crops with those measured.

    Raises:
        ArtifactError: the file answers something else.
    """
    session = open_session(challenger.model.SerializeToString(), provider="cpu", threads=1).session
    for crop, embedding in zip(crops, embeddings, strict=True):
        served, served_embedding = (np.asarray(a) for a in session.run([PROBABILITIES, EMBEDDING], {IMAGE: crop[None]}))
        measured = np.asarray(embedding, np.float32)[None]
        size = max(float(np.abs(measured).max()), 1e-12)
        grafted = float(np.abs(served - head.probabilities(served_embedding)).max())
        moved = float(np.abs(served_embedding - measured).max() / size)
        expected = head.probabilities(measured)
        # A steep head makes much of rounding: its answer counts, not how sure of it it is.
        answers = float(np.abs(served - expected).max()) if served.argmax() != expected.argmax() else 0.0
        if not max(grafted, answers) <= PROOF_TOLERANCE or not moved <= EMBEDDING_TOLERANCE:
            raise ArtifactError(
                f"the finished model file differs from what was measured by {max(grafted, answers, moved):.2g}"
            )


def prove_on_files(
    challenger: Challenger, head: Head, file_of: Callable[[str], ImageFile], rows: Iterable[int] | None = None
) -> None:
    """Prove a file on the first readable pictures, of holdout where possible.

    ``file_of`` finds a picture by its hash; ``rows`` of the features take the place of the holdout.
    """
    features = challenger.features
    if rows is None:
        holdout = np.flatnonzero(features.is_holdout).tolist()
        rows = holdout or range(len(features.sha256))
    row_of = dict(zip(features.sha256, range(len(features.sha256)), strict=True))
    files = ((features.sha256[row], file_of(features.sha256[row])) for row in rows)
    shown = list(islice(readable_crops(files, challenger.card.image), _PROOF_IMAGES))
    prove(challenger, head, [crop for _, crop in shown], [features.embedding[row_of[sha256]] for sha256, _ in shown])


def publish(
    store: ModelStore,
    challenger: Challenger,
    *,
    left_out: Sequence[LeftOutFile],
    who: str,
    why: str,
    job: str = "",
    findings: Findings = NOTHING_FOUND,
    thumbnails: Mapping[str, bytes] = NO_PICTURES,
    looked: Mapping[str, bytes] = NO_PICTURES,
) -> int:
    """Write a version, not yet promoted, and return its number."""
    train = challenger.features.train()
    counts = np.bincount(train.label_index, minlength=len(train.labels)).tolist()
    findings = replace(findings, train_images=dict(zip(train.labels, counts, strict=True)))

    def write(folder: Path) -> None:
        onnx.save_model(challenger.model, folder / MODEL_FILE)
        arrays = challenger.additional.arrays() if challenger.additional else {}
        arrays |= challenger.anchor.arrays() if challenger.anchor else {}
        arrays |= challenger.unseen
        challenger.features.save(folder / FEATURES_FILE, arrays)
        page = render(challenger.card, findings, left_out, thumbnails, looked)
        (folder / REPORT_FILE).write_text(page, encoding="utf-8", errors="backslashreplace")
        (folder / REPORT_JSON_FILE).write_text(report_json(challenger.card, findings, left_out), encoding="utf-8")
        if challenger.state is not None:
            (folder / STATE_FILE).write_bytes(challenger.state)

    return store.publish(challenger.card.name, write, who=who, why=why, job=job)


def promote(
    store: ModelStore, name: str, version: int, *, who: str, why: str, expected: int | None, job: str = ""
) -> None:
    """Make a published version the champion, once its file is read back.

    ``expected`` is the champion that the decision is based on, 0 where there was none; None is content with any.

    Raises:
        ArtifactError: the file is damaged.
        PreconditionError: the champion is another by now.
        StorageError: the disk refused; the champion is as it was.
    """
    read(store.folder(name, version) / MODEL_FILE)
    store.move(name, version, who=who, why=why, job=job, expected=expected)


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that a card names."""
    versions = {"regraft": version("regraft")}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
