"""Reasons for answers: neighbours, the map, explanations, and the learning curve."""

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from regraft.errors import InvalidRequestError, NotFoundError, PreconditionError
from regraft.model import artifact
from regraft.model.artifact import FloatArray
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.listing import Side
from regraft.stores.models import FEATURES_FILE, MODEL_FILE
from regraft.v1 import examples_pb2 as pb
from serving.inference.models_in_memory import ServedModel
from serving.inference.registry import ModelRegistry
from serving.insight.explainer import Explainer
from serving.insight.labelled_pictures import Labelled, LabelledPictures
from serving.insight.neighbours import Neighbour, nearest
from serving.insight.picture_map import Place, kept_axes, places
from serving.retraining.predictor import present_head
from serving.retraining.previews import Look, Previews
from serving.rpc.labelled.messages import SPLITS
from serving.rpc.labelled.previews import to_curve

_NEIGHBOURS: Final = 10
_MOST_NEIGHBOURS: Final = 100


class Insights:
    """Answers of the RPCs that show why; they change nothing."""

    def __init__(
        self, models: ModelRegistry, examples: ExamplesStore, previews: Previews, explainer: Explainer
    ) -> None:
        """Tell of the ``models`` and their ``examples``."""
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._previews = previews
        self._explainer = explainer

    async def learning_curve(self, request: pb.GetLearningCurveRequest) -> pb.GetLearningCurveResponse:
        """Tell accuracy against the number of labels."""
        curve = await self._previews.look(self._models.held(request.name).name, Look.CURVE)
        return pb.GetLearningCurveResponse(curve=to_curve(curve))

    async def neighbours(self, request: pb.NeighboursRequest) -> pb.NeighboursResponse:
        """Find labelled pictures that are like one."""
        if request.count > _MOST_NEIGHBOURS:
            raise InvalidRequestError(f"count: {request.count}; the most is {_MOST_NEIGHBOURS}")
        _check_one(request)
        with self._models.acquire(request.name) as served:
            embedding = await self._explainer.embedding(served, request.image) if request.image else None
            find = self._threads.database.run
            answer, found = await find(self._nearest, served, embedding, request.sha256, request.count or _NEIGHBOURS)
            head = await find(present_head, self._examples, served)
            best = int(answer.argmax())
            return pb.NeighboursResponse(
                version=served.version,
                answer=head.labels[best],
                probability=float(answer[best]),
                neighbours=[_neighbour(each) for each in found],
            )

    async def map(self, request: pb.MapRequest) -> AsyncIterator[pb.MapResponse]:
        """Place all labelled pictures, a block a message."""
        with self._models.acquire(request.name) as served:
            messages = await self._threads.database.run(self._map, served)
            while (message := await self._threads.database.run(next, messages, None)) is not None:
                yield message

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Show where the network looked."""
        _check_one(request)
        with self._models.acquire(request.name) as served:
            ask = self._threads.database.run
            image = request.image or await ask(self._image, served, request.sha256)
            head = await ask(present_head, self._examples, served)
            explained = await self._explainer.explain(served, image, head.labels, request.label)
        return pb.ExplainResponse(
            version=explained.version,
            label=explained.label,
            probability=explained.probability,
            overlay=explained.overlay,
            cells=len(explained.heat),
            heat=explained.heat.ravel().tolist(),
        )

    def _pictures(self, served: ServedModel) -> LabelledPictures:
        features = self._models.store.folder(served.name, served.version) / FEATURES_FILE
        return LabelledPictures(features, self._examples, served.name, served.key, served.card.labels_as_of)

    def _nearest(
        self, served: ServedModel, embedding: FloatArray | None, sha256: str, count: int
    ) -> tuple[FloatArray, list[Neighbour]]:
        """Return probabilities [K] of a picture, and its neighbours."""
        pictures = self._pictures(served)
        if embedding is None:
            sha256, embedding = self._embedding(served, pictures, sha256)
        found = nearest(pictures, embedding, count, besides=sha256)
        return served.head.probabilities(embedding[None])[0], found

    def _embedding(self, served: ServedModel, pictures: LabelledPictures, beginning: str) -> tuple[str, FloatArray]:
        """Return hash and embedding of a labelled or pooled picture."""
        sha256 = _whole(beginning, pictures.by_hash, served.name)
        if sha256:
            embedding = pictures.embedding(sha256)
        else:
            sha256 = self._examples.pool.find(served.name, beginning).sha256
            embedding = self._examples.embeddings.get(served.key, [sha256]).get(sha256)
        if embedding is None:
            raise PreconditionError(f"the picture {sha256} is not embedded yet: try again soon")
        return sha256, embedding

    def _map(self, served: ServedModel) -> Iterator[pb.MapResponse]:
        store = self._models.store

        def first_version() -> tuple[int, Path]:
            for version in store.versions(served.name):
                folder = store.folder(served.name, version)
                is_like = artifact.read(folder / MODEL_FILE).card.embedding_key == served.card.embedding_key
                if is_like and (folder / FEATURES_FILE).is_file():
                    return version, folder / FEATURES_FILE
            raise PreconditionError(f"no version of {served.name} has its {FEATURES_FILE}: there is nothing to map")

        axes = kept_axes(store.root / served.name, served.key, first_version)
        pictures = self._pictures(served)
        labels = sorted({each.label for each in pictures.by_hash.values()})
        index = {label: number for number, label in enumerate(labels)}
        blocks = list(places(pictures, axes))
        head = pb.MapResponse(
            axes_version=axes.version, labels=labels, not_embedded=len(pictures.by_hash) - sum(map(len, blocks))
        )
        return chain([head], (pb.MapResponse(points=[_point(place, index) for place in block]) for block in blocks))

    def _image(self, served: ServedModel, sha256: str) -> bytes:
        """Read a labelled picture, or one of the pool.

        Raises:
            NotFoundError: there is none, or its bytes were never kept.
        """
        try:
            example = self._examples.labels.find(served.name, sha256, or_removed=True)
        except NotFoundError:
            return self._examples.pool.read(self._examples.pool.find(served.name, sha256).sha256)
        return self._examples.read(example.sha256)


def _check_one(request: pb.NeighboursRequest | pb.ExplainRequest) -> None:
    """Refuse a request that names no picture, or two."""
    if bool(request.image) == bool(request.sha256):
        raise InvalidRequestError("image, sha256: a request has one of the two")


def _whole(beginning: str, hashes: Iterable[str], model: str) -> str:
    """Return the one hash that begins so, or an empty text.

    Raises:
        NotFoundError: several do.
    """
    found = [sha256 for sha256 in hashes if sha256.startswith(beginning)]
    if len(found) > 1:
        raise NotFoundError(f"model {model!r} learns from several pictures whose hash begins {beginning!r}")
    return found[0] if found else ""


def _split(picture: Labelled) -> pb.Split:
    sides = {None: Side.UNDECIDED, True: Side.HOLDOUT, False: Side.TRAINING}
    return SPLITS[sides[picture.is_holdout]]


def _neighbour(neighbour: Neighbour) -> pb.NeighboursResponse.Neighbour:
    picture = neighbour.picture
    return pb.NeighboursResponse.Neighbour(
        sha256=picture.sha256,
        label=picture.label,
        source=picture.source,
        split=_split(picture),
        is_learned=picture.is_learned,
        similarity=neighbour.similarity,
    )


def _point(place: Place, index: dict[str, int]) -> pb.MapResponse.Point:
    picture = place.picture
    return pb.MapResponse.Point(
        sha256=picture.sha256,
        label_index=index[picture.label],
        split=_split(picture),
        is_learned=picture.is_learned,
        x=place.x,
        y=place.y,
    )
