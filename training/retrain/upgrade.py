"""The story of ``regraft upgrade``: a version of an older Regraft gets embeddings and a head of this one, by the gate.

The backbone stays as it is in the file, so that neither torch nor the original weights are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import DatasetError
from regraft.files import text_of
from regraft.machine import user_name
from regraft.model import artifact
from regraft.progress import Progress, silent
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import ImageFile
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, GateMode, ModelStore
from regraft.stores.older_versions import OlderVersion, find_older, read_older
from regraft.stores.recovery import job_lock
from training.backbones.cache import backbone_of, embedding_cache
from training.data.find_images import find_images
from training.gate.verdict import Verdict
from training.head.features import Embedder, Features, load_features
from training.head.fit import refit
from training.retrain.data import FIRST_SOURCE, RetrainData
from training.retrain.evidence import Terms, golden_answers, judge_challenger
from training.retrain.outcome import reason_of
from training.versions.publish import Provenance, build, promote, prove_on_files, publish
from training.versions.read import StoredVersion


@dataclass(frozen=True)
class Upgraded:
    """What came of one model; ``promoted`` tells whether the new version is the champion now."""

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
    """Redo every champion that this Regraft cannot serve, and yield what came of each.

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
    read = read_older(folder / MODEL_FILE)
    champion = StoredVersion(older.version, read, load_features(folder / FEATURES_FILE), None)
    files = find_images(champion.features.sha256, data, places, progress)
    embedder, features, unreadable = _embed(champion, files, cache, progress)
    fitted = refit(read.card, features, None, progress)
    golden = store.golden(older.name)
    looks = golden_answers(golden, embedder, fitted.head, features.labels) if golden else []
    old = champion.features.select(np.isin(champion.features.sha256, features.sha256))
    before = read.head.probabilities(old.holdout().embedding)  # as it answered while its own rule held
    terms = Terms(golden=looks, target_error=read.card.settings.get("target_error"))
    findings = judge_challenger(champion.features, before, _data_of(features), fitted, terms)
    verdict = findings.verdict
    assert verdict is not None  # it was judged just now
    provenance = Provenance.of_refit(older.name, "upgrade", read.card, older.version)
    challenger = build(backbone_of(read), fitted, features, provenance)
    prove_on_files(challenger, fitted.head, files.__getitem__)
    left_out = [(f"{sha256} ({text_of(Path(str(files[sha256])))})", reason) for sha256, reason in unreadable.items()]
    who, why = user_name(), reason_of("upgrade", verdict, gate)
    version = publish(store, challenger, left_out=left_out, who=who, why=why, findings=findings)
    promoted = gate is GateMode.OFF or (verdict.blessed and gate is GateMode.AUTO)
    if promoted:
        promote(store, older.name, version, who=who, why=why, expected=older.version)
    return Upgraded(older.name, version, older.version, verdict, promoted)


def _embed(
    champion: StoredVersion, files: dict[str, ImageFile], cache: Path, progress: Progress
) -> tuple[Embedder, Features, dict[str, str]]:
    """Return the version's features by this Regraft's image rule, and by hash why a picture is not among them."""
    card = champion.artifact.card
    backbone = artifact.ungraft(champion.artifact.model).SerializeToString()
    embedder = Embedder.open(backbone, card.image, card.embedding_key, card.backbone.precision)
    with embedding_cache(cache) as known:
        embeddings, failures = embedder.embed(files, known, progress)
    kept = champion.features.select(~np.isin(champion.features.sha256, list(failures)))
    if not champion.features.sha256:
        raise DatasetError(f"{card.name}:{champion.version} has no pictures to fit a head on: import it again")
    if not kept.sha256:
        raise DatasetError(f"no image can be read any more; the first: {next(iter(failures.values()))}")
    vectors = np.array([embeddings[sha256] for sha256 in kept.sha256], np.float32)
    return embedder, replace(kept, embedding=vectors), failures


def _data_of(features: Features) -> RetrainData:
    """Return the same pictures as data of a retrain that brings nothing new."""
    count = len(features.sha256)
    nothing = np.zeros(count, np.bool_)
    return RetrainData(features, None, (FIRST_SOURCE,) * count, nothing, (), features.select(nothing))
