"""The strategy ``probe``: the backbone stays as it is, a head is fitted on its embeddings."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from training.backbones.cache import ExportedBackbone, embedding_cache, load_backbone
from training.data.dataset import Dataset, check_trainable
from training.data.mirroring import look
from training.data.random_crop import Augmentation
from training.data.samples import Sample
from training.data.split import split_by_likeness
from training.evaluation.cross_validation import cross_validate
from training.evaluation.findings import Findings
from training.head.features import Embedder, Features
from training.head.fit import Additional, fit
from training.head.half_precision import fit_in_half
from training.head.views import embed_views
from training.strategies.context import Context, Made, embed
from training.strategies.extra_data import join_extra
from training.versions.source import source_of


def probe(dataset: Dataset, context: Context) -> Made:
    """Export, embed, fit, and look at what further views and a second set bring, where they are asked for."""
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


def probe_on(backbone: ExportedBackbone, dataset: Dataset, context: Context) -> Made:
    """Probe a backbone that is there already."""
    settings, watch = context.settings, context.watch
    with watch.stage("embed"):
        dataset, features, embedder = embed(dataset, backbone, context)
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
            fitted, additional, extra, found = join_extra(settings.extra, features, fitted, views, embedder, context)
            findings = replace(findings, extra=found)
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
    return Made("probe", dataset, backbone, features, fitted, findings, extra, additional, mirror)


def _restore(features: Features, dataset: Dataset, embedder: Embedder, context: Context) -> None:
    """Make the embeddings exact again, mostly out of the cache."""
    files = {image.sha256: image.path for image in dataset.images}
    with embedding_cache(context.cache) as known:
        embedder.embed_again(features, files, known)


def may_mirror(
    dataset: Dataset, features: Features, embedder: Embedder, context: Context
) -> tuple[bool, tuple[str, ...]]:
    """Decide whether to mirror pictures: as a person said, else by a look at some; and return what is to be told."""
    settings = context.settings
    if settings.augment == "none" or (settings.strategy == "probe" and not settings.views):
        return False, ()  # nothing would be mirrored
    if settings.mirror is not None:
        return settings.mirror, ()
    with embedding_cache(context.cache) as known:
        said = look(embedder, features, _training_files(dataset), settings.seed, known, context.progress)
    return not said, (said,) if said else ()


def _views(
    dataset: Dataset, features: Features, embedder: Embedder, context: Context, *, mirror: bool
) -> Additional | None:
    settings = context.settings
    if not settings.views:
        return None
    augmentation = Augmentation(settings.augment, mirror)
    with embedding_cache(context.cache) as known:
        return embed_views(
            embedder,
            features,
            _training_files(dataset),
            settings.views,
            settings.seed,
            known,
            context.progress,
            augmentation,
        )


def _training_files(dataset: Dataset) -> dict[str, Path]:
    return {image.sha256: image.path for image in dataset.images if not image.is_holdout}
