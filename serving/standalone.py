"""Classification by a model file, without a server."""

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from regraft.client.model_answers import NEVER, Answering, Outcome, Reply
from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.limits import ImageLimits
from regraft.image.spec import Crop
from regraft.model.artifact import Head, read
from regraft.model.card import ModelCard
from regraft.read_ahead import map_ahead
from regraft.stores.images import ImageFile
from regraft.v1 import classifier_pb2 as pb
from serving.inference.engine import Engine, Output, open_plain_engine

Seconds: TypeAlias = dict[str, float]
"""How long each stage took, by its name in `regraft.v1.Timings`."""


@dataclass(frozen=True)
class _Version:
    """The version of a model file, 0 where its folder has no number."""

    name: str
    version: int
    card: ModelCard


@dataclass(frozen=True)
class _Decoded:
    key: str
    crop: Crop | InvalidImageError
    seconds: float


@dataclass(frozen=True)
class StandaloneModel:
    """A model file, with a session on it.

    Attributes:
        version: its name and number are those of the file and of its folder.
        limits: the most bytes and pixels of a picture.
    """

    version: _Version
    head: Head
    engine: Engine
    limits: ImageLimits

    @staticmethod
    def open(file: Path, limits: ImageLimits) -> "StandaloneModel":
        """Read a model file, and open a session on it.

        Raises:
            ArtifactError: the file is no model that can be run; the text says why.
        """
        artifact = read(file)
        number = file.resolve().parent.name
        version = int(number) if number.isascii() and number.isdecimal() else 0
        return StandaloneModel(
            _Version(artifact.card.name, version, artifact.card), artifact.head, open_plain_engine(file), limits
        )

    def outputs(
        self, pictures: Iterable[tuple[str, ImageFile]]
    ) -> Iterator[tuple[str, Output | InvalidImageError, Seconds]]:
        """Yield the output for each (id, picture), in order, or its error.

        On a CPU each is decoded and run in a thread, several at once; on a GPU the threads decode for batches.
        """
        if self.engine.provider == "cpu":
            yield from map_ahead(lambda picture: self._run([self._decode(picture)])[0], pictures)
            return
        size = self.engine.plan.max_batch
        decoded = map_ahead(self._decode, pictures, ahead=2 * size)
        while batch := list(islice(decoded, size)):
            yield from self._run(batch)

    def _decode(self, picture: tuple[str, ImageFile]) -> _Decoded:
        key, file = picture
        started_s = time.perf_counter()
        crop: Crop | InvalidImageError
        try:
            crop = decode_crop(file.read_bytes(), self.version.card.image, self.limits)
        except InvalidImageError as error:
            crop = error
        except OSError as error:
            crop = InvalidImageError(f"cannot be read: {error.strerror or error}")
        return _Decoded(key, crop, time.perf_counter() - started_s)

    def _run(self, batch: list[_Decoded]) -> list[tuple[str, Output | InvalidImageError, Seconds]]:
        started_s = time.perf_counter()
        crops = [each.crop for each in batch if not isinstance(each.crop, InvalidImageError)]
        outputs = iter(self.engine.run(crops, [self.head] * len(crops)) if crops else [])
        ran_s = time.perf_counter() - started_s
        return [
            (
                each.key,
                each.crop if isinstance(each.crop, InvalidImageError) else next(outputs),
                {"decode": each.seconds, "queue": 0.0, "inference": ran_s, "total": each.seconds + ran_s},
            )
            for each in batch
        ]

    def replies(self, pictures: Iterable[tuple[str, ImageFile]]) -> Iterator[Outcome]:
        """Yield every probability of each (id, picture), or its error."""
        card = self.version.card
        by = Answering(
            card.name,
            self.version.version,
            card.labels,
            card.novelty_threshold,
            card.abstention.target_error if card.abstention else None,
            card.abstention.threshold if card.abstention else NEVER,
        )
        for key, output, _ in self.outputs(pictures):
            if isinstance(output, InvalidImageError):
                yield key, str(output)
            else:
                yield key, Reply(by, output.probabilities, output.novelty)


def classify_standalone(
    file: Path, pictures: Iterable[tuple[str, ImageFile]], *, top_k: int, limits: ImageLimits
) -> Iterator[pb.ClassifyStreamResponse]:
    """Yield a server's answer to each (id, picture), or its error.

    Raises:
        ArtifactError: the file is no model that can be run; the text says why.
    """
    from serving.inference.classifier import Answer, ranked  # noqa: PLC0415 - they take SQLAlchemy, which `StandaloneModel` spares
    from serving.rpc.classifier import error_message, to_message  # noqa: PLC0415 - likewise

    model = StandaloneModel.open(file, limits)
    labels = model.version.card.labels
    for key, output, seconds in model.outputs(pictures):
        if isinstance(output, InvalidImageError):
            yield error_message(key, output)
        else:
            predictions = ranked(output, labels, top_k)
            answer = Answer(model.version, predictions, output.novelty, seconds, uuid.uuid4().hex)
            yield pb.ClassifyStreamResponse(id=key, response=to_message(answer))
