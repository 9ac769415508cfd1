"""Classifies pictures by a model file without a server, and answers as one would."""

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from regraft.artifact import Head, read
from regraft.card import ModelCard
from regraft.errors import InvalidImageError
from regraft.image import decode_crop
from regraft.image_limits import Limits
from regraft.v1 import classifier_pb2 as pb
from serving.classifier import Answer, ranked
from serving.engine import Engine, open_plain_engine
from serving.grpc_classifier import outcome_of_error, to_message


@dataclass(frozen=True)
class _Version:
    """The version that a file is; 0 where its folder does not say."""

    name: str
    version: int
    card: ModelCard


def classify_alone(
    file: Path, pictures: Iterable[tuple[str, bytes]], *, top_k: int, limits: Limits
) -> Iterator[pb.ClassifyStreamResponse]:
    """Yield the answer to each (id, picture) pair, or the error of one that cannot be read.

    Raises:
        ArtifactError: the file is no model that can be run; the text says why.
    """
    artifact = read(file)
    number = file.resolve().parent.name
    version = _Version(artifact.card.name, int(number) if number.isascii() and number.isdecimal() else 0, artifact.card)
    engine = open_plain_engine(file)
    for key, picture in pictures:
        try:
            answer = _answer(engine, version, artifact.head, picture, top_k, limits)
        except InvalidImageError as error:
            yield outcome_of_error(key, error)
        else:
            yield pb.ClassifyStreamResponse(id=key, response=to_message(answer))


def _answer(engine: Engine, version: _Version, head: Head, picture: bytes, top_k: int, limits: Limits) -> Answer:
    started_s = time.perf_counter()
    crop = decode_crop(picture, version.card.image, limits)
    decoded_s = time.perf_counter()
    [output] = engine.run([crop], [head])
    done_s = time.perf_counter()
    seconds = {
        "decode": decoded_s - started_s,
        "queue": 0.0,
        "inference": done_s - decoded_s,
        "total": done_s - started_s,
    }
    return Answer(version, ranked(output, version.card.labels, top_k), output.novelty, seconds, uuid.uuid4().hex)
