"""The strategy ``probe``: a head on the frozen backbone."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from training.backbones.cache import ExportedBackbone, embedding_cache, load_backbone
from training.data.dataset import Dataset, check_trainable
from training.data.mirroring import check_mirroring
from training.data.random_crop import Augmentation
from training.data.samples import Sample
from training.data.split import split_by_likeness
from training.evaluation.cross_validation import cross_validate
from training.evaluation.findings import Findings
from training.head.additional import Additional
from training.head.features import Embedder, Features
from training.head.fit import fit
from training.head.half_precision import fit_in_half
from training.head.views import embed_views
from training.strategies.context import Candidate, Context, embed_dataset
from training.strategies.extra_data import fit_with_extra
from training.versions.source import source_of


def probe(dataset: Dataset, context: Context) -> Candidate:
    """Fit a head on a frozen backbone, with views and second set."""
    with context.watch.stage("export"):
        backbone = _backbone(context)
    return probe_on(backbone, dataset, context)


def _backbone(context: Context) -> ExportedBackbone:
    settings, source = context.settings, source_of(context.settings)
    if source is not None:
        backbone = source.backbone()
        return replace(backbone, spec=backbone.spec.resized_by(settings.resize))
    return load_backbone(
        settings.backbone,
        settings.weights,
        settings.seed,
        context.cache,
        context.progress,
        image_px=settings.image_px,
        resize=settings.resize,
    )


def probe_on(backbone: ExportedBackbone, dataset: Dataset, context: Context) -> Candidate:
    """Probe a backbone that is there already."""
    settings, watch = context.settings, context.watch
    with watch.stage("embed"):
        dataset, features, embedder = embed_dataset(dataset, backbone, context)
        check_trainable(dataset, settings.data)
        dataset, features = split_by_likeness(dataset, features)
        check_trainable(dataset, settings.data)
        mirror, notes = may_mirror(dataset, features, embedder, context)
        views = _views(dataset, features, embedder, context, mirror=mirror)
    with watch.stage("fit"):
        fitted = fit_in_half(
            features,
            partial(fit, progress=context.progress, seed=settings.seed, balance=settings.balance, additional=views),
            partial(_restore, dataset=dataset, embedder=embedder, context=context),
        )
    findings = Findings(notes=(*backbone.notes, *notes))
    additional: Additional | None = views
    extra: tuple[Sample, ...] = ()
    if settings.extra is not None:
        with watch.stage("extra"):
            joined = fit_with_extra(settings.extra, features, fitted, views, embedder, context)
            fitted, additional, extra = joined.fitted, joined.additional, joined.samples
            findings = replace(findings, extra=joined.finding)
    if settings.cv:
        with watch.stage("cv"):
            validation = cross_validate(
                features,
                settings.cv,
                seed=settings.seed,
                balance=settings.balance,
                additional=additional,
                progress=context.progress,
            )
            findings = replace(findings, cross_validation=validation)
    return Candidate("probe", dataset, backbone, features, fitted, findings, extra, additional, mirror)


def _restore(features: Features, dataset: Dataset, embedder: Embedder, context: Context) -> None:
    """Make the embeddings exact again, mostly out of the cache."""
    files = {image.sha256: image.path for image in dataset.images}
    with embedding_cache(context.cache) as cache:
        embedder.embed_again(features, files, cache)


def may_mirror(
    dataset: Dataset, features: Features, embedder: Embedder, context: Context
) -> tuple[bool, tuple[str, ...]]:
    """Decide whether to mirror pictures, as told or by a test, with notes."""
    settings = context.settings
    if settings.augment == "none" or (settings.strategy == "probe" and not settings.views):
        return False, ()  # nothing would be mirrored
    if settings.mirror is not None:
        return settings.mirror, ()
    with embedding_cache(context.cache) as cache:
        remark = check_mirroring(embedder, features, _training_files(dataset), settings.seed, cache, context.progress)
    return not remark, (remark,) if remark else ()


def _views(
    dataset: Dataset, features: Features, embedder: Embedder, context: Context, *, mirror: bool
) -> Additional | None:
    settings = context.settings
    if not settings.views:
        return None
    augmentation = Augmentation(settings.augment, mirror)
    with embedding_cache(context.cache) as cache:
        return embed_views(
            embedder,
            features,
            _training_files(dataset),
            settings.views,
            settings.seed,
            cache,
            context.progress,
            augmentation,
        )


def _training_files(dataset: Dataset) -> dict[str, Path]:
    return {image.sha256: image.path for image in dataset.images if not image.is_holdout}
