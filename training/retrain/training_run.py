"""Judgement of a training run, whose backbone and split may differ."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from regraft.gate_limits import GateLimits
from regraft.model.artifact import FloatArray
from regraft.stores.embeddings import EmbeddingCache
from regraft.stores.images import ImageFile, ImageFiles, example_images
from regraft.stores.originals import FIRST_SOURCE
from training.backbones.cache import embedding_cache
from training.evaluation.findings import Findings
from training.head.features import Embedder, Features, assemble
from training.retrain.data import RetrainData, Row, embeddings_of, new_rows, rows_of
from training.retrain.evidence import Terms, golden_answers, judge_challenger
from training.retrain.near_copies import relatives
from training.strategies.context import Candidate, Context
from training.versions.read import StoredVersion


def judge_training_run(
    champion: StoredVersion,
    candidate: Candidate,
    examples: str,
    golden: list[tuple[Path, str]],
    context: Context,
    limits: GateLimits,
) -> Findings:
    """Judge a training run with a split of its own.

    The pictures are those that neither was fitted on: the holdout of the run without what belongs with pictures that
    the champion learned from, and the champion's without what belongs with those of the run. A class of the champion
    that the run does not have is a reason to refuse: its pictures came from elsewhere. Pictures of the champion's
    holdout may be among ``examples``, a folder or URL.
    """
    now, before = candidate.features, champion.features
    files: dict[str, ImageFile] = {image.sha256: image.path for image in candidate.dataset.images}
    with embedding_cache(context.cache) as cached:
        excluded = _learned_by_champion(champion, now.holdout(), files, cached, context)
        older = _champion_holdout(champion, candidate, files, example_images(examples), context)
        rows = [row for row in rows_of(now) if row[0] not in excluded]
        old_rows = rows_of(older)
        features = assemble(
            now.labels,
            [*rows, *(row for row in old_rows if row[1] in now.labels)],
            {**embeddings_of(now), **embeddings_of(older)},
        )
        lost = older.select(np.array([label not in now.labels for _, label, _ in old_rows], np.bool_))
        unseen = len(set(before.holdout().sha256) - set(now.sha256)) - len(old_rows)
        data = RetrainData(
            features,
            None,
            (FIRST_SOURCE,) * len(features.sha256),
            new_rows(before, features),
            (),
            lost,
            tuple(_remarks(champion, len(excluded), unseen)),
        )
        findings = judge_across_backbones(champion, candidate, data, files, cached, golden, context, Terms(limits))
    return _without_lost_classes(findings, champion, now.labels)


def _learned_by_champion(
    champion: StoredVersion, holdout: Features, files: Mapping[str, ImageFile], cached: EmbeddingCache, context: Context
) -> set[str]:
    """Return hashes of holdout pictures that the champion learned."""
    train = champion.features.train()
    rest = holdout.select(~np.isin(holdout.sha256, train.sha256))
    seen = champion_embeddings(champion, {sha256: files[sha256] for sha256 in rest.sha256}, cached, context)
    vectors = np.array([seen[sha256] for sha256 in rest.sha256], np.float32).reshape(-1, train.embedding.shape[1])
    return (set(holdout.sha256) - set(rest.sha256)) | relatives(replace(rest, embedding=vectors), train)


def _champion_holdout(
    champion: StoredVersion, candidate: Candidate, files: dict[str, ImageFile], store: ImageFiles, context: Context
) -> Features:
    """Embed the champion's own holdout; its files join ``files``."""
    now, before = candidate.features, champion.features.holdout()
    learned = {*now.sha256, *(sample.sha256 for sample in candidate.extra)}
    wanted = {sha256: store.file(sha256) for sha256 in before.sha256 if sha256 not in learned}
    files |= wanted
    embeddings = candidate_embeddings(champion, candidate, wanted, context)
    older = before.select(np.isin(before.sha256, list(embeddings)))
    vectors = np.array([embeddings[sha256] for sha256 in older.sha256], np.float32)
    older = replace(older, embedding=vectors.reshape(-1, now.embedding.shape[1]))
    return older.select(~np.isin(older.sha256, list(relatives(older, now.train()))))


def judge_across_backbones(
    champion: StoredVersion,
    candidate: Candidate,
    data: RetrainData,
    files: Mapping[str, ImageFile],
    cached: EmbeddingCache,
    golden: list[tuple[Path, str]],
    context: Context,
    terms: Terms,
) -> Findings:
    """Judge a candidate; the champion answers by its own backbone.

    The embeddings in ``data`` are those of the new backbone; ``cached`` has the champion's, and takes those that are
    missing, of ``files`` by hash. The ``golden`` pictures and the champion's target error join the terms.
    """
    names = (*data.features.holdout().sha256, *data.lost.sha256)
    embeddings = champion_embeddings(champion, {sha256: files[sha256] for sha256 in names}, cached, context)
    size = champion.features.embedding.shape[1]
    rows = np.array([embeddings[sha256] for sha256 in names], np.float32).reshape(len(names), size)
    head = candidate.fitted.head
    looks = golden_answers(golden, Embedder.of(candidate.backbone), head, data.features.labels) if golden else []
    before = champion.probabilities(rows)
    terms = replace(terms, golden=looks, target_error=champion.artifact.card.settings.get("target_error"))
    return judge_challenger(champion.features, before, data, candidate.fitted, terms)


def champion_embeddings(
    champion: StoredVersion, files: Mapping[str, ImageFile], cached: EmbeddingCache, context: Context
) -> dict[str, FloatArray]:
    """Embed pictures by the champion's backbone; ``cached`` as in `judge_across_backbones`."""
    embeddings = embeddings_of(champion.features)
    missing = {sha256: file for sha256, file in files.items() if sha256 not in embeddings}
    if missing:
        embeddings |= champion.embedder.embed(missing, cached, context.progress)[0]
    return embeddings


def candidate_embeddings(
    champion: StoredVersion, candidate: Candidate, files: Mapping[str, ImageFile], context: Context
) -> dict[str, FloatArray]:
    """Embed more pictures by the new backbone, without unreadable ones."""
    same = embeddings_of(champion.features) if candidate.backbone.key == champion.key else {}
    embeddings = {sha256: same[sha256] for sha256 in files if sha256 in same}
    missing = {sha256: file for sha256, file in files.items() if sha256 not in embeddings}
    if missing:
        with embedding_cache(context.cache) as cached:
            embeddings |= Embedder.of(candidate.backbone).embed(missing, cached, context.progress)[0]
    return embeddings


def holdout_rows(
    labels: tuple[str, ...], rows: list[Row], embeddings: Mapping[str, FloatArray], like: Features
) -> Features:
    """Return rows, perhaps none, as features as wide as others."""
    nothing = np.zeros(len(like.sha256), np.bool_)
    return assemble(labels, rows, embeddings) if rows else replace(like.select(nothing), labels=labels)


def _remarks(champion: StoredVersion, learned: int, unseen: int) -> Iterator[str]:
    if learned:
        yield (
            f"{learned} holdout images of this run judge nobody, since version {champion.version} was fitted on them, "
            "or on images that belong with them"
        )
    if unseen:
        yield (
            f"{unseen} holdout images of version {champion.version} judge nobody, since they are not at hand, or "
            "belong with images that this run was fitted on"
        )


def _without_lost_classes(findings: Findings, champion: StoredVersion, labels: tuple[str, ...]) -> Findings:
    """Refuse a run where classes of the champion would be gone."""
    before = champion.features
    counts = np.bincount(before.label_index, minlength=len(before.labels))
    lost = [(label, count) for label, count in zip(before.labels, counts, strict=True) if label not in labels]
    gone = [
        f"class {label!r} would be gone, of which version {champion.version} knows {count} images: `regraft refresh` "
        "learns from the folder and from what was labelled since"
        for label, count in lost
        if count
    ]
    if strange := [label for label, count in lost if not count]:
        gone.append(
            f"{len(strange)} classes would be gone that version {champion.version} was imported with, the first is "
            f"{strange[0]!r}: give the new model another --name"
        )
    verdict = findings.verdict
    if not gone or verdict is None:
        return findings
    return replace(findings, verdict=replace(verdict, blessed=False, reasons=(*gone, *verdict.reasons)))
