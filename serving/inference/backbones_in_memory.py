"""Backbones in memory: one session for all models with its digest."""

import logging
from collections.abc import Callable
from functools import partial

from regraft.errors import OverloadedError
from regraft.image.limits import ImageLimits
from regraft.model.artifact import Head
from regraft.model.card import ModelCard
from regraft.stores.backbones import StoredBackbone
from serving.inference.backbone import Backbone
from serving.inference.cpus import CpuPool
from serving.inference.engine import Engine
from serving.threads import Threads

log = logging.getLogger("regraft.models")


class BackbonesInMemory:
    """The backbones that models use.

    The last user of one closes it. Use from one event loop.
    """

    def __init__(
        self,
        threads: Threads,
        cpus: CpuPool,
        *,
        max_queue: int,
        limits: ImageLimits,
        on_batch: Callable[[int], None],
    ) -> None:
        """Open sessions in ``threads``, on ``cpus`` that all share; the rest as `Backbone`."""
        self._threads = threads
        self._make = partial(Backbone, max_queue=max_queue, limits=limits, on_batch=on_batch, cpus=cpus)
        self._backbones: dict[str, Backbone] = {}

    @property
    def depth(self) -> int:
        """The number of pictures that wait for any of them."""
        return sum(backbone.depth for backbone in list(self._backbones.values()))

    def get(self, digest: str) -> Backbone | None:
        """Return the backbone of a digest, if a model uses it."""
        return self._backbones.get(digest)

    def refusal(self, seconds_left: float | None) -> OverloadedError | None:
        """Return the error by which every backbone would refuse a request now, or None."""
        refusals = [backbone.refusal(seconds_left) for backbone in self._backbones.values()]
        return refusals[0] if refusals and all(refusals) else None

    async def use(self, card: ModelCard | StoredBackbone, head: Head, open_engine: Callable[[], Engine]) -> Backbone:
        """Return the backbone of a card for one user more.

        A head is tried on it first. Where nobody uses it yet, ``open_engine`` is called in a thread. Calls must not
        overlap.

        Raises:
            RegraftError: it cannot be opened, or answers nonsense.
        """
        digest = card.backbone.digest
        backbone = self._backbones.get(digest)
        is_shared = backbone is not None
        if backbone is None:
            engine = await self._threads.store.run(open_engine)
            backbone = self._backbones[digest] = self._make(engine)
            log.info("backbone %s: opened a session on %s, %s", card.backbone.name, engine.provider, engine.plan)
        backbone.users += 1  # before the trial, or the last request of an old version could close it meanwhile
        try:
            if is_shared:
                await backbone.try_head(head, card.image.crop_px)
            else:
                await backbone.warm_up(head, card.image.crop_px)
        except BaseException:
            self.give_up(backbone, digest)
            raise
        return backbone

    def give_up(self, backbone: Backbone, digest: str) -> None:
        """Give up one use of a backbone."""
        backbone.users -= 1
        if not backbone.users:
            backbone.close()
            del self._backbones[digest]

    def close(self) -> None:
        """Refuse what waits in the lanes."""
        for backbone in self._backbones.values():
            backbone.close()
