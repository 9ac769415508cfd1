"""Upgrade of versions of an older Regraft: new embeddings and head.

The backbone stays as it is in the file, so that neither torch nor the original weights are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import DatasetError
from regraft.machine import user_name
from regraft.progress import Progress, silent
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, GateMode, ModelStore
from regraft.stores.older_versions import OlderVersion, find_older, read_older
from regraft.stores.originals import FIRST_SOURCE
from regraft.stores.recovery import job_lock
from training.backbones.cache import backbone_of
from training.data.find_images import find_images
from training.gate.verdict import Verdict
from training.head.features import Embedder, Features, load_features
from training.head.fit import refit
from training.retrain.data import RetrainData
from training.retrain.evidence import Terms, golden_answers, judge_challenger
from training.retrain.outcome import goes_live, reason_of
from training.versions.publish import Provenance, build, promote, prove_on_files, publish
from training.versions.read import StoredVersion, embed_anew


@dataclass(frozen=True)
class Upgraded:
    """An upgraded version, champion if ``promoted``."""

    name: str
    version: int
    parent_version: int
    verdict: Verdict
    promoted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**vars(self), "verdict": self.verdict.to_dict()}


def upgrade(
    store: ModelStore,
    examples: ExamplesStore,
    places: str,
    data: Path | None,
    *,
    cache: Path,
    gate: GateMode = GateMode.AUTO,
    progress: Progress = silent,
) -> Iterator[Upgraded]:
    """Upgrade every champion that this Regraft cannot serve.

    Args:
        store: the model store.
        examples: what people labelled.
        places: the folder or URL of the examples, for their pictures.
        data: a folder with the pictures of the training runs, however they lie in it; None where all came over gRPC.
        cache: of embeddings.
        gate: whether a blessed version goes live.
        progress: told the stages ``scan``, ``embed`` and ``fit``.

    Raises:
        DatasetError: a picture of a version is nowhere; its model stays as it is.
        JobTakenError: a model is being retrained.
        StorageError: the store could not be written.
    """
    for older in [each for each in find_older(store) if each.is_champion]:
        with job_lock(examples, older.name):
            yield _upgrade(store, older, places, data, cache, gate, progress)


def _upgrade(
    store: ModelStore,
    older: OlderVersion,
    places: str,
    data: Path | None,
    cache: Path,
    gate: GateMode,
    progress: Progress,
) -> Upgraded:
    folder = store.folder(older.name, older.version)
    model = read_older(folder / MODEL_FILE)
    champion = StoredVersion(older.version, model, load_features(folder / FEATURES_FILE), None)
    files = find_images(champion.features.sha256, data, places, progress)
    if not champion.features.sha256:
        raise DatasetError(f"{model.card.name}:{older.version} has no pictures to fit a head on: import it again")
    backbone = backbone_of(model)
    embedder = Embedder.of(backbone)
    features, left_out = embed_anew(champion.features, embedder, files, cache, progress)
    fitted = refit(model.card, features, None, progress)
    golden = store.golden(older.name)
    looks = golden_answers(golden, embedder, fitted.head, features.labels) if golden else []
    old = champion.features.select(np.isin(champion.features.sha256, features.sha256))
    before = model.head.probabilities(old.holdout().embedding)  # as it answered while its own rule held
    terms = Terms(golden=looks, target_error=model.card.settings.get("target_error"))
    findings = judge_challenger(champion.features, before, _data_of(features), fitted, terms)
    verdict = findings.verdict
    assert verdict is not None  # it was judged just now
    provenance = Provenance.of_refit(older.name, "upgrade", model.card, older.version)
    challenger = build(backbone, fitted, features, provenance)
    prove_on_files(challenger, fitted.head, files.__getitem__)
    who, why = user_name(), reason_of("upgrade", verdict, gate)
    version = publish(store, challenger, left_out=left_out, who=who, why=why, findings=findings)
    promoted = goes_live(verdict, gate)
    if promoted:
        promote(store, older.name, version, who=who, why=why, expected=older.version)
    return Upgraded(older.name, version, older.version, verdict, promoted)


def _data_of(features: Features) -> RetrainData:
    """Return features as data of a retrain without news."""
    count = len(features.sha256)
    nothing = np.zeros(count, np.bool_)
    return RetrainData(features, None, (FIRST_SOURCE,) * count, nothing, (), features.select(nothing))
