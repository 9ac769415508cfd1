"""What a whole training run puts before the gate: its backbone, and its split, may be others than the champion's."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from regraft.artifact import FloatArray
from regraft.embeddings import EmbeddingCache
from regraft.examples import kept_images
from regraft.image_files import ImageFile
from training.anchor import Anchor
from training.features import Embedder, Features, assemble
from training.findings import Findings
from training.objections import Limits
from training.pretrained import embedding_cache
from training.quarantine import NOTHING_QUARANTINED, Quarantined
from training.retrain_data import FIRST_SOURCE, Champion, RetrainData, Row, new_rows, rows_of
from training.retrain_gate import golden_answers, judge_challenger
from training.strategy import Context, Made


def judge_trained(
    champion: Champion, made: Made, examples: str, golden: list[tuple[Path, str]], context: Context, limits: Limits
) -> Findings:
    """Judge a training run that shares no split with the champion, by pictures that neither was fitted on.

    They are the holdout of the run without what the champion learned from, and the champion's without what the run
    did. A class of the champion that the run does not have is a reason to refuse: its pictures came from elsewhere.

    Args:
        champion: what it competes with.
        made: what the run made.
        examples: folder or URL of the examples, where pictures of the champion's holdout may be.
        golden: see `judge_challenger`.
        context: of the run.
        limits: of the gate.
    """
    now, before = made.features, champion.features
    aside = set(before.train().sha256)
    own = [row for row in rows_of(now) if not (row[2] and row[0] in aside)]
    learned = {*now.train().sha256, *(sample.sha256 for sample in made.extra)}
    there = learned.union(now.sha256)
    older = [row for row in rows_of(before.holdout()) if row[0] not in there]
    kept = kept_images(examples)
    files: dict[str, ImageFile] = {sha256: kept.file(sha256) for sha256, _, _ in older}
    embeddings = made_embeddings(champion, made, files, context)
    data = RetrainData(
        assemble(
            now.labels,
            [*own, *(row for row in older if row[1] in now.labels)],
            dict(zip(now.sha256, now.embedding, strict=True)) | embeddings,
        ),
        None,
        (),
        np.empty(0, np.bool_),
        (),
        held_rows(before.labels, [row for row in older if row[1] not in now.labels], embeddings, now),
        tuple(_remarks(champion, len(now.sha256) - len(own), len(older) - len(embeddings))),
    )
    features = data.features
    data = replace(data, source=(FIRST_SOURCE,) * len(features.sha256), is_new=new_rows(before, features))
    files |= {image.sha256: image.path for image in made.dataset.images}
    with embedding_cache(context.cache) as known:
        found = judge_made(champion, made, data, files, known, golden, context, limits)
    return _without_lost_classes(found, champion, now.labels)


def judge_made(
    champion: Champion,
    made: Made,
    data: RetrainData,
    files: Mapping[str, ImageFile],
    known: EmbeddingCache,
    golden: list[tuple[Path, str]],
    context: Context,
    limits: Limits,
    quarantined: Quarantined = NOTHING_QUARANTINED,
    anchor: Anchor | None = None,
) -> Findings:
    """Judge what a training run made; the champion looks at the holdout through its own backbone.

    Args:
        champion: what it competes with.
        made: what the run made.
        data: see `judge_challenger`; embeddings are those of the new backbone.
        files: by hash, of the pictures to judge by.
        known: has embeddings of the champion's backbone, and takes those that are missing.
        golden: see `judge_challenger`.
        context: of the run.
        limits: of the gate.
        quarantined: labels that were left out.
        anchor: the best versions so far.
    """
    names = (*data.features.holdout().sha256, *data.lost.sha256)
    embeddings = _of_champion(champion)
    missing = {sha256: files[sha256] for sha256 in names if sha256 not in embeddings}
    if missing:
        embeddings |= champion.embedder.embed(missing, known, context.progress)[0]
    size = champion.features.embedding.shape[1]
    rows = np.array([embeddings[sha256] for sha256 in names], np.float32).reshape(len(names), size)
    looks = golden_answers(golden, _embedder(made), made.fitted.head, data.features.labels) if golden else []
    before = champion.probabilities(rows)
    target_error = champion.artifact.card.settings.get("target_error")
    return judge_challenger(
        champion.features, before, data, made.fitted, limits, looks, quarantined, anchor, target_error=target_error
    )


def made_embeddings(
    champion: Champion, made: Made, files: Mapping[str, ImageFile], context: Context
) -> dict[str, FloatArray]:
    """Return what the new backbone makes of more pictures, by hash; what cannot be read is missing."""
    same = _of_champion(champion) if made.backbone.key == champion.key else {}
    found = {sha256: same[sha256] for sha256 in files if sha256 in same}
    missing = {sha256: file for sha256, file in files.items() if sha256 not in found}
    if missing:
        with embedding_cache(context.cache) as known:
            found |= _embedder(made).embed(missing, known, context.progress)[0]
    return found


def held_rows(
    labels: tuple[str, ...], rows: list[Row], embeddings: Mapping[str, FloatArray], like: Features
) -> Features:
    """Return rows as features that are as wide as others, also where there are none."""
    nothing = np.zeros(len(like.sha256), np.bool_)
    return assemble(labels, rows, embeddings) if rows else replace(like.select(nothing), labels=labels)


def _of_champion(champion: Champion) -> dict[str, FloatArray]:
    return dict(zip(champion.features.sha256, champion.features.embedding, strict=True))


def _embedder(made: Made) -> Embedder:
    backbone = made.backbone
    return Embedder.open(backbone.model.SerializeToString(), backbone.spec, backbone.key, backbone.precision)


def _remarks(champion: Champion, learned: int, unseen: int) -> Iterator[str]:
    if learned:
        yield f"{learned} holdout images of this run judge nobody, since version {champion.version} was fitted on them"
    if unseen:
        yield (
            f"{unseen} holdout images of version {champion.version} judge nobody, since they are neither in the folder "
            "nor among the labelled examples"
        )


def _without_lost_classes(found: Findings, champion: Champion, labels: tuple[str, ...]) -> Findings:
    """Return what was found, refused where classes of the champion would be gone."""
    counts = np.bincount(champion.features.label_index, minlength=len(champion.features.labels))
    gone = [
        f"class {label!r} would be gone, of which version {champion.version} knows {count} images: `regraft refresh` "
        "learns from the folder and from what was labelled since"
        for label, count in zip(champion.features.labels, counts, strict=True)
        if count and label not in labels
    ]
    verdict = found.verdict
    if not gone or verdict is None:
        return found
    return replace(found, verdict=replace(verdict, blessed=False, reasons=(*gone, *verdict.reasons)))
