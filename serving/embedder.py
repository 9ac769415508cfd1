"""Embeds new examples in the background, with the serving session, so that a retrain finds them ready.

One picture at a time goes through the lanes like any request, so live traffic is hardly delayed. What is missing when a
retrain starts, the job embeds itself: this is a head start, never a promise.
"""

import asyncio
import logging
from typing import Final

from regraft.artifact import FloatArray
from regraft.embeddings import EmbeddingKey
from regraft.errors import NotNowError, RegraftError
from regraft.examples import ExamplesStore
from serving.backbone import Question
from serving.models import Models, ServedModel

log = logging.getLogger("regraft.embedder")

_CHUNK: Final = 16


class BackgroundEmbedder:
    """Run `run` as a task; `wake` it when there are new examples or a new backbone."""

    def __init__(self, models: Models, examples: ExamplesStore) -> None:
        """Embed what ``examples`` holds for what ``models`` serves."""
        self._models = models
        self._examples = examples
        self._awake = asyncio.Event()
        self._hopeless: set[str] = set()
        self._awake.set()  # what a crash left without an embedding is found at the start

    def wake(self) -> None:
        """Look for work."""
        self._awake.set()

    async def run(self) -> None:
        """Embed whatever is missing, sleep until woken, for ever; cancel the task to stop."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            for name in self._models.names():
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
            missing = await asyncio.to_thread(self._examples.without_embedding, name, key, _CHUNK + len(self._hopeless))
            todo = [sha256 for sha256 in missing if sha256 not in self._hopeless][:_CHUNK]
            vectors = {}
            for sha256 in todo:
                try:
                    vectors[sha256] = await self._embed(served, sha256)
                except NotNowError:
                    raise
                except Exception as error:  # one picture must not hold up those after it; a retrain tries it again
                    self._hopeless.add(sha256)
                    log.warning("example %s cannot be embedded", sha256, exc_info=error)
            await asyncio.to_thread(self._examples.embeddings.put, key, vectors)
            return bool(todo)

    async def _embed(self, served: ServedModel, sha256: str) -> FloatArray:
        image = await asyncio.to_thread(self._examples.image_file(sha256).read_bytes)
        reply = await served.backbone.ask(Question(image, served.card.image, served.head))
        return reply.output.embedding
