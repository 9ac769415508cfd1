"""Embeds new examples in the background, with the serving session, so that a retrain finds them ready.

Live requests go first. The crop that was made when a picture was checked is used again while there is room to keep it.
What is missing when a retrain starts, the job embeds itself: this is a head start, never a promise.
"""

import asyncio
import logging
from typing import Final

from regraft.artifact import FloatArray
from regraft.embeddings import EmbeddingKey
from regraft.errors import NotNowError, RegraftError
from regraft.examples import ExamplesStore
from regraft.image import Crop, ImageSpec
from serving.backbone import Question
from serving.models import Models, ServedModel

log = logging.getLogger("regraft.embedder")

_CHUNK: Final = 64
_CHAINS: Final = 2
"""While one chunk is written, the lanes have another."""
_MOST_CROPS_BYTES: Final = 64 * 2**20


class BackgroundEmbedder:
    """Run `run` as a task; `wake` it when there are new examples or a new backbone."""

    def __init__(self, models: Models, examples: ExamplesStore) -> None:
        """Embed what ``examples`` holds for what ``models`` serves."""
        self._models = models
        self._examples = examples
        self._awake = [asyncio.Event() for _ in range(_CHAINS)]
        self._hopeless: set[str] = set()
        self._in_work: set[str] = set()
        self._crops: dict[str, tuple[ImageSpec, Crop]] = {}
        self._crops_bytes = 0
        self.wake()  # what a crash left without an embedding is found at the start

    def wake(self) -> None:
        """Look for work."""
        for awake in self._awake:
            awake.set()

    def offer(self, served: ServedModel, sha256: str, crop: Crop) -> None:
        """Look for work, of which this picture is some; its crop is here already."""
        if self._crops_bytes + crop.nbytes <= _MOST_CROPS_BYTES and sha256 not in self._crops:
            self._crops[sha256] = served.card.image, crop
            self._crops_bytes += crop.nbytes
        self.wake()

    async def run(self) -> None:
        """Embed whatever is missing, sleep until woken, for ever; cancel the task to stop."""
        await asyncio.gather(*(self._run_chain(awake) for awake in self._awake))

    async def _run_chain(self, awake: asyncio.Event) -> None:
        while True:
            await awake.wait()
            awake.clear()
            for name in self._models.names():
                await self._embed_all(name)
            if not self._in_work and not any(other.is_set() for other in self._awake):
                self._crops.clear()  # of what was removed before it was embedded
                self._crops_bytes = 0

    async def _embed_all(self, name: str) -> None:
        try:
            while await self._embed_some(name):
                pass
        except NotNowError as error:
            log.info("embedding examples of %s waits: %s", name, error)
        except RegraftError as error:
            log.warning("embedding examples of %s: %s", name, error)
        except Exception:  # whatever it was, the next wake tries again
            log.exception("embedding examples of %s", name)

    async def _embed_some(self, name: str) -> bool:
        """Embed a few pictures of a model; False when none is left."""
        with self._models.acquire(name) as served:
            key = EmbeddingKey(served.card.backbone.digest, served.card.image.digest())
            passed_over = self._hopeless | self._in_work
            missing = await asyncio.to_thread(self._examples.without_embedding, name, key, _CHUNK + len(passed_over))
            todo = [sha256 for sha256 in missing if sha256 not in self._hopeless | self._in_work][:_CHUNK]
            self._in_work.update(todo)
            try:
                vectors, failure = await self._embed_together(served, todo)
                await asyncio.to_thread(self._examples.embeddings.put, key, vectors)
                if failure:
                    raise failure
            finally:
                self._in_work.difference_update(todo)
            return bool(todo)

    async def _embed_together(
        self, served: ServedModel, hashes: list[str]
    ) -> tuple[dict[str, FloatArray], NotNowError | None]:
        """Embed pictures, as many at once as keep the lanes busy; one that cannot be must not hold up the others.

        Returns:
            The embeddings, and what kept some from being made just now.
        """
        plan = served.backbone.engine.plan
        vectors: dict[str, FloatArray] = {}
        left = iter(hashes)

        async def embed_one_by_one() -> NotNowError | None:
            for sha256 in left:
                try:
                    vectors[sha256] = await self._embed(served, sha256)
                except NotNowError as error:
                    return error
                except Exception as error:  # a retrain tries it again
                    self._hopeless.add(sha256)
                    log.warning("example %s cannot be embedded", sha256, exc_info=error)
            return None

        busy = min(len(hashes), 2 * plan.lanes * plan.max_batch)
        ends = await asyncio.gather(*(embed_one_by_one() for _ in range(busy)))
        return vectors, next(filter(None, ends), None)

    async def _embed(self, served: ServedModel, sha256: str) -> FloatArray:
        spec, crop = self._crops.pop(sha256, (None, None))
        self._crops_bytes -= crop.nbytes if crop is not None else 0
        image: bytes | Crop
        if crop is not None and spec == served.card.image:
            image = crop
        else:
            image = await asyncio.to_thread(self._examples.image_file(sha256).read_bytes)
        question = Question(image, served.card.image, served.head)
        return (await served.backbone.ask(question, background=True)).output.embedding
