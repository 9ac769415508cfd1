"""The strategy ``probe``: the backbone stays as it is, a head is fitted on its embeddings."""

from dataclasses import replace

from training.cross_validation import cross_validate
from training.dataset import Dataset
from training.extra import join_extra
from training.features import Embedder, Features
from training.findings import Findings
from training.head import Additional, fit
from training.pretrained import ExportedBackbone, embedding_cache, load_backbone
from training.samples import Sample
from training.strategy import Context, Made, embed
from training.views import embed_views


def probe(dataset: Dataset, context: Context) -> Made:
    """Export, embed, fit, and look at what further views and a second set bring, where they are asked for."""
    settings = context.settings
    with context.watch.stage("export"):
        backbone = load_backbone(
            settings.backbone,
            settings.weights,
            settings.seed,
            context.cache,
            context.progress,
            image_px=settings.image_px,
        )
    return probe_on(backbone, dataset, context)


def probe_on(backbone: ExportedBackbone, dataset: Dataset, context: Context) -> Made:
    """Probe a backbone that is there already."""
    settings, watch = context.settings, context.watch
    with watch.stage("embed"):
        dataset, features, embedder = embed(dataset, backbone, context)
        views = _views(dataset, features, embedder, context)
    with watch.stage("fit"):
        fitted = fit(features, context.progress, seed=settings.seed, balance=settings.balance, additional=views)
    findings = Findings(notes=backbone.notes)
    additional: Additional | None = views
    extra: tuple[Sample, ...] = ()
    if settings.extra is not None:
        with watch.stage("extra"):
            fitted, additional, extra, found = join_extra(settings.extra, features, fitted, views, embedder, context)
            findings = replace(findings, extra=found)
    if settings.cv and settings.strategy == "probe":
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
    return Made("probe", dataset, backbone, features, fitted, findings, extra, additional)


def _views(dataset: Dataset, features: Features, embedder: Embedder, context: Context) -> Additional | None:
    settings = context.settings
    if not settings.views:
        return None
    files = {image.sha256: image.path for image in dataset.images if not image.is_holdout}
    with embedding_cache(context.cache) as known:
        return embed_views(embedder, features, files, settings.views, settings.seed, known, context.progress)
