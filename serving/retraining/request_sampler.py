"""Sampling of served pictures with their predictions (`regraft.stores.unlabelled.requests`).

A request only leaves its picture in a queue. Where the disk does not keep up the queue is full, and the picture is not
kept: no request waits, and none fails.
"""

import asyncio
import logging
import random
from collections import deque
from dataclasses import dataclass
from typing import Final

from regraft.errors import RegraftError
from regraft.label_rules import image_hash
from regraft.stores.images import Bounds
from regraft.stores.unlabelled.requests import KeptRequest, KeptRequests
from serving.inference.engine import Output
from serving.inference.models_in_memory import ServedModel
from serving.telemetry.metrics import Metrics
from serving.threads import Threads

log = logging.getLogger("regraft.keeper")

_MAX_QUEUE: Final = 256
_MAX_QUEUE_BYTES: Final = 64 * 2**20
_MAX_BATCH: Final = 32


@dataclass(frozen=True, eq=False)
class _Served:
    request_id: str
    served: ServedModel
    image: bytes
    output: Output


class RequestSampler:
    """A sampler of requests; use from one event loop, with `run` as a task."""

    def __init__(self, requests: KeptRequests, rate: float, bounds: Bounds, metrics: Metrics, threads: Threads) -> None:
        """Keep the share ``rate``, 0 to 1, of what is offered."""
        self._requests = requests
        self._rate = rate
        self._bounds = bounds
        self._threads = threads
        self._outcomes = {outcome: metrics.kept_requests.labels(outcome) for outcome in ("kept", "dropped")}
        self._waiting: deque[_Served] = deque()
        self._waiting_bytes = 0
        self._awake = asyncio.Event()
        self._is_failing = False

    def offer(self, request_id: str, served: ServedModel, image: bytes, output: Output) -> None:
        """Keep the picture of an answered request, if drawn and there is room."""
        if random.random() >= self._rate:  # noqa: S311 - a sample is no secret
            return
        if len(self._waiting) >= _MAX_QUEUE or self._waiting_bytes + len(image) > _MAX_QUEUE_BYTES:
            self._outcomes["dropped"].inc()
            return
        self._waiting.append(_Served(request_id, served, image, output))
        self._waiting_bytes += len(image)
        self._awake.set()

    async def run(self) -> None:
        """Keep what was offered, for ever; cancel the task to stop."""
        while True:
            await self._awake.wait()
            batch = [self._waiting.popleft() for _ in range(min(_MAX_BATCH, len(self._waiting)))]
            if not self._waiting:
                self._awake.clear()
            self._waiting_bytes -= sum(len(served.image) for served in batch)
            await self._keep(batch)

    async def _keep(self, batch: list[_Served]) -> None:
        try:
            await self._threads.writes.run(lambda: self._requests.keep([*map(_entry, batch)], self._bounds))
        except RegraftError as error:
            self._outcomes["dropped"].inc(len(batch))
            if not self._is_failing:  # once, not for every request
                log.warning("requests are not kept: %s", error)
            self._is_failing = True
        except Exception:  # of a batch that cannot be kept nothing else may suffer
            self._outcomes["dropped"].inc(len(batch))
            log.exception("keeping requests")
        else:
            self._outcomes["kept"].inc(len(batch))
            self._is_failing = False


def _entry(item: _Served) -> tuple[KeptRequest, bytes]:
    card, output = item.served.card, item.output
    top = int(output.probabilities.argmax())
    request = KeptRequest(
        item.request_id,
        item.served.name,
        item.served.version,
        image_hash(item.image),
        card.labels[top],
        float(output.probabilities[top]),
        output.novelty,
        item.served.key,
        output.embedding,
    )
    return request, item.image
