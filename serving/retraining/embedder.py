"""Background embedding of new pictures, labelled or not, with the serving session.

Live requests go first. The crop that was made when a picture was checked is embedded as it is; what there is no room
for, or a crash left behind, is found in the database. What is missing when a retrain starts, the job embeds itself.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from regraft.errors import NotNowError, RegraftError
from regraft.image.spec import Crop, ImageSpec
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import ImageFile
from regraft.stores.labels import Labels
from regraft.stores.unlabelled.pool import PicturePool
from serving.inference.backbone import InferenceRequest
from serving.inference.models_in_memory import HeldModel
from serving.inference.registry import ModelRegistry

log = logging.getLogger("regraft.embedder")

_CHUNK: Final = 64
_CHAINS: Final = 2
"""While one chunk is written, the lanes have another."""
_AHEAD: Final = 4
"""Batches a lane that a chain has in the lanes or waiting for them; with fewer, their turns would be short."""
_AHEAD_ENCODED: Final = 2
"""Of pictures that are decoded there, since each may have as many bytes as a request."""
_MAX_CROPS_BYTES: Final = 64 * 2**20
"""Of one model."""


class BackgroundEmbedder:
    """An embedder of examples; run `run` as a task.

    `wake` it when there may be examples that it was not offered, or a new backbone.
    """

    def __init__(
        self,
        models: ModelRegistry,
        examples: ExamplesStore,
        on_embedded: Callable[[str], object] = lambda _name: None,
    ) -> None:
        """Embed the examples of all models, whether they answer or not.

        Args:
            models: the registry.
            examples: their examples.
            on_embedded: told the model of some that were embedded just now.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._on_embedded = on_embedded
        self._awake = [asyncio.Event() for _ in range(_CHAINS)]
        self._may_miss: set[str] = set()  # models that the database shall be asked about
        # The last one that was found done, of the labels and of the pool.
        self._looked_through: dict[tuple[object, str, EmbeddingKey], int] = {}
        self._crops: defaultdict[str, dict[str, tuple[ImageSpec, Crop]]] = defaultdict(dict)  # by model, by hash
        self._hopeless: set[str] = set()
        self._in_work: set[str] = set()

    def wake(self) -> None:
        """Look for missing embeddings in the database."""
        names = self._models.names_held()
        self._may_miss.update(names)
        for removed in self._crops.keys() - set(names):
            del self._crops[removed]
            self._looked_through.clear()
        self._wake_chains()

    def offer(self, served: HeldModel, sha256: str, crop: Crop) -> None:
        """Take a new example with its crop."""
        crops = self._crops[served.name]
        if (len(crops) + 1) * crop.nbytes > _MAX_CROPS_BYTES:
            self._may_miss.add(served.name)
        elif sha256 not in self._in_work:
            crops[sha256] = served.card.image, crop
        self._wake_chains()

    async def run(self, every_s: float) -> None:
        """Embed for ever, and look in the database now and every so often."""
        async with asyncio.TaskGroup() as tasks:  # where one dies none is left behind, since all begin again
            tasks.create_task(self._wake_by_the_clock(every_s))
            for awake in self._awake:
                tasks.create_task(self._run_chain(awake))

    async def _wake_by_the_clock(self, every_s: float) -> None:
        """Wake every so often, for labels of crashed or other processes."""
        while True:
            self.wake()
            await asyncio.sleep(every_s)

    def _wake_chains(self) -> None:
        for awake in self._awake:
            awake.set()

    async def _run_chain(self, awake: asyncio.Event) -> None:
        while True:
            await awake.wait()
            awake.clear()
            for name in self._models.names_held():
                await self._embed_all(name)

    async def _embed_all(self, name: str) -> None:
        try:
            while await self._embed_some(name):
                pass
            return
        except NotNowError as error:
            log.info("embedding examples of %s waits: %s", name, error)
        except RegraftError as error:
            log.warning("embedding examples of %s: %s", name, error)
        except Exception:  # whatever it was, the next wake tries again
            log.exception("embedding examples of %s", name)
        self._looked_through.clear()  # what was in work is to be found again

    async def _embed_some(self, name: str) -> bool:
        """Embed a few pictures of a model; False where none was left."""
        with self._models.hold(name) as served:
            key = served.key
            todo = self._take_crops(served) or await self._find_missing(name, key)
            self._in_work.update(todo)
            try:
                vectors = await self._embed_together(served, todo)
                await self._threads.writes.run(self._examples.embeddings.put, key, vectors)
                if vectors:
                    self._on_embedded(name)
            finally:
                self._in_work.difference_update(todo)
            return bool(todo)

    def _take_crops(self, served: HeldModel) -> dict[str, Crop | ImageFile]:
        """Take a few crops that were cut for this version."""
        crops = self._crops[served.name]
        taken: dict[str, Crop | ImageFile] = {}
        while crops and len(taken) < _CHUNK:
            sha256, (spec, crop) = crops.popitem()
            if spec == served.card.image:
                taken[sha256] = crop
            else:
                self._may_miss.add(served.name)
                self._looked_through.clear()
        return taken

    async def _find_missing(self, name: str, key: EmbeddingKey) -> dict[str, Crop | ImageFile]:
        """Find a few pictures without an embedding, labelled ones first."""
        if name not in self._may_miss:
            return {}
        self._may_miss.discard(name)  # before it is asked: what comes meanwhile may have come too late for the answer
        examples = self._examples
        for rows, file in ((examples.labels, examples.image_file), (examples.pool, examples.pool.file)):
            if todo := await self._missing_among(rows, name, key):
                self._may_miss.add(name)  # there may be more
                self._wake_chains()
                return {sha256: file(sha256) for sha256 in todo}
        return {}

    async def _missing_among(self, rows: Labels | PicturePool, name: str, key: EmbeddingKey) -> list[str]:
        others = self._hopeless | self._in_work | self._crops[name].keys()
        after, most = self._looked_through.get((rows, name, key), 0), _CHUNK + len(others)
        missing = await self._threads.database.run(rows.without_embedding, name, key, most, after)
        others |= self._hopeless | self._in_work | self._crops[name].keys()  # an old answer misses what is done by now
        todo = [sha256 for sha256 in missing if sha256 not in others][:_CHUNK]
        self._looked_through[rows, name, key] = missing[todo[-1]] if todo else max(missing.values(), default=after)
        return todo

    async def _embed_together(self, served: HeldModel, todo: Mapping[str, Crop | ImageFile]) -> dict[str, FloatArray]:
        """Embed pictures, as many at once as keep the lanes busy."""
        plan = served.backbone.engine.plan
        ahead = _AHEAD_ENCODED if not all(isinstance(picture, np.ndarray) for picture in todo.values()) else _AHEAD
        vectors: dict[str, FloatArray] = {}
        remaining = iter(todo.items())

        async def embed_one_by_one() -> None:
            for sha256, picture in remaining:
                try:
                    vectors[sha256] = await self._embed(served, picture)
                except Exception as error:  # a retrain tries it again
                    self._hopeless.add(sha256)
                    log.warning("picture %s cannot be embedded", sha256, exc_info=error)

        busy = min(len(todo), ahead * plan.lanes * plan.max_batch)
        await asyncio.gather(*(embed_one_by_one() for _ in range(busy)))
        return vectors

    async def _embed(self, served: HeldModel, picture: Crop | ImageFile) -> FloatArray:
        image = picture if isinstance(picture, np.ndarray) else await self._threads.database.run(picture.read_bytes)
        request = InferenceRequest(image, served.card.image, served.head)
        return (await served.backbone.infer(request, background=True)).output.embedding
