"""Answers with every probability, by server or file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from regraft.client.classify_files import classify_files
from regraft.client.client import Client
from regraft.errors import PreconditionError
from regraft.model.artifact import FloatArray
from regraft.progress import Progress, silent
from regraft.v1 import classifier_pb2

EVERY_LABEL: Final = 100_000
"""The most labels that a server may be asked for: all of them."""
NEVER: Final = -1.0
"""A threshold below every probability."""


@dataclass(frozen=True)
class Answering:
    """The answering version, with labels and thresholds.

    Attributes:
        version: 0 where a file's folder does not say.
        labels: K of them.
        novelty_threshold: pictures above it are unlike the training images.
        target_error: share of the answers given that may be wrong; None where none was asked for.
        abstains_up_to: answers of at most this probability are declined; `NEVER` where none are.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    novelty_threshold: float
    target_error: float | None = None
    abstains_up_to: float = NEVER


@dataclass(frozen=True)
class Reply:
    """A reply about one picture.

    Probabilities are float32 [K].
    """

    by: Answering
    probabilities: FloatArray
    novelty: float


Outcome: TypeAlias = tuple[str, Reply | str]
"""The id of a picture, with its reply or the reason for none."""


@dataclass(frozen=True)
class ModelAnswers:
    """A model's answers to n pictures.

    Attributes:
        by: the version that gave them.
        ids: n of them, in the order of the files.
        probabilities: float32 [n, K].
        novelty: float32 [n].
        failures: by id, why a picture could not be answered.
    """

    by: Answering
    ids: tuple[str, ...]
    probabilities: FloatArray
    novelty: FloatArray
    failures: dict[str, str] = field(default_factory=dict)


def gather(outcomes: Iterable[Outcome], count: int, progress: Progress = silent) -> ModelAnswers:
    """Gather the outcomes of one model.

    Args:
        outcomes: of one model.
        count: how many there will be.
        progress: told the stage ``evaluate``.

    Raises:
        PreconditionError: another version began to answer, or not one picture could be answered.
    """
    by: Answering | None = None
    ids: list[str] = []
    failures: dict[str, str] = {}
    probabilities, novelty = np.empty((0, 0), np.float32), np.empty(count, np.float32)
    for done, (key, reply) in enumerate(outcomes, start=1):
        if isinstance(reply, str):
            failures[key] = reply
        else:
            if by is None:
                by, probabilities = reply.by, np.empty((count, len(reply.by.labels)), np.float32)
            if reply.by != by:
                raise PreconditionError(
                    f"{by.name}: version {reply.by.version} went live while {by.version} was asked: evaluate again"
                )
            probabilities[len(ids)], novelty[len(ids)] = reply.probabilities, reply.novelty
            ids.append(key)
        progress("evaluate", done, count)
    if by is None:
        reason = next(iter(failures.items()), ("", "there are none"))
        raise PreconditionError(f"not one picture could be answered; the first: {': '.join(filter(None, reason))}")
    return ModelAnswers(by, tuple(ids), probabilities[: len(ids)], novelty[: len(ids)], failures)


def replies_of_server(client: Client, files: Sequence[tuple[str, Path]], name: str = "") -> Iterator[Outcome]:
    """Yield a server's reply to each (id, file)."""
    by: Answering | None = None
    place: dict[str, int] = {}
    for answer in classify_files(client, files, name=name, top_k=EVERY_LABEL):
        if answer.HasField("error"):
            yield answer.id, answer.error.message
            continue
        response = answer.response
        if by is None or (by.name, by.version) != (response.name, response.version):
            by = _answering(response)
            place = {label: index for index, label in enumerate(by.labels)}
        probabilities = np.empty(len(by.labels), np.float32)
        for each in response.predictions:
            probabilities[place[each.label]] = each.probability
        yield answer.id, Reply(by, probabilities, response.novelty.score)


def _answering(response: classifier_pb2.ClassifyResponse) -> Answering:
    """Return the version that answered; its labels are sorted."""
    declines = response.HasField("abstention")
    return Answering(
        response.name,
        response.version,
        tuple(sorted(each.label for each in response.predictions)),
        response.novelty.threshold,
        response.abstention.target_error if declines else None,
        response.abstention.threshold if declines else NEVER,
    )
