"""Milliseconds a picture of stored backbones, as measured on this machine.

What an execution plan was measured for is read from its file. Others are measured in the background, one at a time: one
picture on one thread, with a CPU that the lanes share, so that no request waits for more than a picture.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from regraft.errors import RegraftError, first_line
from regraft.machine import trim_heap
from regraft.model.artifact import graft_blank
from regraft.model.session import DEFAULT_CUDA, CudaOptions, ProviderChoice
from regraft.stores.backbones import BackboneStore, StoredBackbone
from serving.inference.cpus import CpuPool
from serving.inference.engine import kept_points, measure_picture
from serving.inference.execution_plan import REAL_CLOCK, Clock, Point
from serving.supervisor import Backoff
from serving.threads import Threads

log = logging.getLogger("regraft.plan")

_PAUSES: Final = Backoff(60.0, 3_600.0)
"""Before another attempt at what could not be measured, as beside other work."""


class PictureTimes:
    """The times of a store's backbones; use from one event loop."""

    def __init__(
        self,
        backbones: BackboneStore,
        threads: Threads,
        cpus: CpuPool,
        *,
        provider: ProviderChoice,
        plans: Path,
        cuda: CudaOptions = DEFAULT_CUDA,
        clock: Clock = REAL_CLOCK,
        pauses: Backoff = _PAUSES,
    ) -> None:
        """Know nothing before the first `look`.

        Args:
            backbones: whose times are asked for.
            threads: to read the store in.
            cpus: that all lanes share.
            provider: as sessions of this server are opened.
            plans: where measurements of execution plans are kept.
            cuda: likewise as `provider`.
            clock: a test's own.
            pauses: before another attempt at a backbone.
        """
        self._backbones = backbones
        self._threads = threads
        self._cpus = cpus
        self._kept = partial(kept_points, provider=provider, plans=plans, cuda=cuda, cpus=cpus.count)
        self._measure = partial(measure_picture, provider=provider, cuda=cuda, cpus=cpus, clock=clock)
        self._now_s = clock.now_s
        self._pauses = pauses
        self._ms: dict[str, float] = {}
        self._failures: dict[str, tuple[int, float]] = {}

    def get(self, digest: str) -> float | None:
        """Return milliseconds of a picture on one thread, None while unknown."""
        return self._ms.get(digest)

    async def look(self) -> None:
        """Learn the time of a backbone that has none yet."""
        for backbone in await self._threads.store.run(self._backbones.list):
            digest = backbone.digest
            failures, due_s = self._failures.get(digest, (0, 0.0))
            if digest in self._ms or self._now_s() < due_s:
                continue
            ms = await self._threads.store.run(self._learn, backbone)
            if ms is not None:
                self._ms[digest] = ms
                return
            self._failures[digest] = failures + 1, self._now_s() + self._pauses.after(failures + 1)

    def _learn(self, backbone: StoredBackbone) -> float | None:
        try:
            if single := _alone(self._kept(backbone)):
                return single
            graph = graft_blank(self._backbones.read(backbone)).SerializeToString()
            measured = self._measure(graph, backbone)
        except (RegraftError, OSError) as error:
            log.info("backbone %s cannot be measured: %s", backbone.name, first_line(error))
            return None
        finally:
            trim_heap()
        if measured.doubt:
            log.info("backbone %s is measured later: %s", backbone.name, measured.doubt)
            return None
        return _alone(measured.points)


def _alone(points: Sequence[Point]) -> float | None:
    """Return milliseconds of a picture by itself on one thread."""
    return min((point.run_ms for point in points if point.threads == point.batch == 1), default=None)
