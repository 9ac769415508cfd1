"""Backbones that a model can begin with, or that could be added, as ListBackbones tells them."""

from collections.abc import AsyncGenerator, Iterable
from typing import Final

from regraft.client.message_values import to_timestamp
from regraft.stores.backbones import ADVICE, DEFAULT_BACKBONE, BackboneStore, StoredBackbone
from regraft.v1 import models_pb2 as pb
from serving.inference.addable_backbones import AddableBackbone, AddableBackbones
from serving.inference.picture_times import PictureTimes
from serving.rpc.pages import as_many_as_fit, page_size, page_start, page_token
from serving.threads import Threads

_MOST: Final = 500
"""In one answer."""


class BackboneList:
    """The list of a server's backbones."""

    def __init__(self, store: BackboneStore, times: PictureTimes, addable: AddableBackbones, threads: Threads) -> None:
        """List those of ``store``, with the times that were measured here, and those that are ``addable``."""
        self._store = store
        self._times = times
        self._addable = addable
        self._threads = threads

    async def page(self, request: pb.ListBackbonesRequest) -> pb.ListBackbonesResponse:
        """Return a page of the list."""
        most, after = page_size(request, _MOST), page_start(request, parts=3) or ["", "", ""]
        stored = await self._threads.store.run(self._store.list)
        here = [_here(each, self._times.get(each.digest)) for each in stored]
        names = {each.name for each in here}
        addable = await self._addable.list() if request.show_addable else ()
        others = [_addable(each) for each in addable if each.name not in names]
        wanted = [each for each in sorted([*here, *others], key=_place) if _place(each) > after]
        page = pb.ListBackbonesResponse(
            backbones=await as_many_as_fit(_each(wanted[:most])), advice="" if here else ADVICE
        )
        if page.backbones and len(page.backbones) < len(wanted):
            page.next_page_token = page_token(request, *_place(page.backbones[-1]))
        return page


def _place(backbone: pb.Backbone) -> list[str]:
    """Return a backbone's place in the list, those that are here first."""
    return ["here" if backbone.is_here else "other", backbone.name, backbone.digest]


async def _each(backbones: Iterable[pb.Backbone]) -> AsyncGenerator[pb.Backbone, None]:
    for backbone in backbones:
        yield backbone


def _here(backbone: StoredBackbone, picture_ms: float | None) -> pb.Backbone:
    published = backbone.published
    return pb.Backbone(
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


def _addable(backbone: AddableBackbone) -> pb.Backbone:
    return pb.Backbone(
        name=backbone.name,
        weights=backbone.weights,
        size_bytes=round(1e6 * (backbone.size_mb or 0)),
        embedding_size=backbone.embedding_size or 0,
        input_px=backbone.image_px,
        imagenet_top1=None if backbone.top1 is None else round(backbone.top1 / 100, 6),
        imagenet_top1_source=backbone.top1_source,
        is_default=backbone.name == DEFAULT_BACKBONE,
    )
