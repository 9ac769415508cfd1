"""List of the backbones that are stored, or could be added."""

from regraft.client.backbone_message import backbone_message
from regraft.stores.backbones import DEFAULT_BACKBONE, BackboneStore, StoredBackbone
from regraft.v1 import models_pb2 as pb
from serving.backbones.addable import AddableBackbone, AddableBackbones
from serving.backbones.picture_times import PictureTimes
from serving.telemetry.call import may_name
from serving.threads import Threads


class BackboneList:
    """The list of a server's backbones."""

    def __init__(self, store: BackboneStore, times: PictureTimes, addable: AddableBackbones, threads: Threads) -> None:
        """List those of ``store``, with ``times``, and those that are ``addable``."""
        self._store = store
        self._times = times
        self._addable = addable
        self._threads = threads

    async def list(self, *, show_addable: bool) -> list[pb.Backbone]:
        """Return those that are here, and behind them, if asked for, the addable."""
        stored = filter(may_use, await self._threads.store.run(self._store.list))
        here = [backbone_message(each, self._times.get(each.digest)) for each in stored]
        names = {each.name for each in here}
        addable = await self._addable.list() if show_addable else ()
        others = [_addable(each) for each in addable if each.name not in names]
        return sorted([*here, *others], key=place)


def may_use(backbone: StoredBackbone) -> bool:
    """Return whether the caller may know of a backbone, and begin with it.

    One that learned from pictures belongs to the model whose pictures these were.
    """
    return not backbone.model or may_name(backbone.model)


def place(backbone: pb.Backbone) -> list[str]:
    """Return a backbone's place in the list, those that are here first."""
    return ["here" if backbone.is_here else "other", backbone.name, backbone.digest]


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
