"""Stored backbones as ListBackbones tells of them."""

from regraft.client.message_values import to_timestamp
from regraft.stores.backbones import DEFAULT_BACKBONE, StoredBackbone
from regraft.v1 import models_pb2


def backbone_message(backbone: StoredBackbone, picture_ms: float | None = None) -> models_pb2.Backbone:
    """Return the message of a stored backbone, with a measured time."""
    published = backbone.published
    return models_pb2.Backbone(
        name=backbone.name,
        digest=backbone.digest,
        weights=backbone.backbone.weights,
        weights_source=published.source,
        licence=published.licence,
        precision=backbone.backbone.precision,
        size_bytes=backbone.size_bytes,
        embedding_size=backbone.embedding_size,
        input_px=backbone.image.crop_px,
        imagenet_top1=published.imagenet_top1,
        imagenet_top1_source=published.imagenet_top1_source,
        picture_ms=picture_ms,
        is_here=True,
        is_default=backbone.name == DEFAULT_BACKBONE,
        added_at=to_timestamp(backbone.added_at),
    )
