"""The callers of `benchmarks.chaos`, and their notes of every call."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from regraft.client.channel import metadata_of, open_aio_channel, open_channel
from regraft.client.connection import Connection
from regraft.client.message_values import word_of
from regraft.v1 import (
    classifier_pb2,
    classifier_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    retraining_pb2,
    retraining_pb2_grpc,
)
from tests.tiny import picture

NAME: Final = "colours"
COLOURS: Final = ("red", "green", "blue", "grey")
CLASSIFY_WITHIN_S: Final = 10.0
CALL_WITHIN_S: Final = 8.0
JOB_WITHIN_S: Final = 60.0
ATTEMPTS: Final = 2
LABELS_AT_ONCE: Final = 5
OK: Final = "OK"
CHANCE: Final = random.Random(0)  # noqa: S311 - no secret
UNKNOWN_ENDS: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN"})
"""Statuses after which a caller does not know what came of its call; any other error says that nothing did."""

MOVES: Final = ("promote", "rollback")


@dataclass(frozen=True)
class Answered:
    """The answer to a picture, with wall-clock times and gRPC's code."""

    sent_at: float
    got_at: float
    code: str
    image: int
    version: int = 0
    label: str = ""
    probability: float = 0.0


@dataclass
class Told:
    """A call that is to change something, and what its caller was told.

    Attributes:
        kind: the call.
        key: what names its effect: the reason of a move, the key of a job, the number of a picture.
        began_at: by the wall clock.
        ended_at: likewise.
        code: gRPC's name.
        version: of a move, the version that answers now; of a job that ended, the one that it published.
        outcome: of a label, its outcome; of a job, its state.
        job: of a retrain.
        wanted: the version to promote.
    """

    kind: str
    key: str
    began_at: float
    ended_at: float = 0.0
    code: str = ""
    version: int = 0
    outcome: str = ""
    job: str = ""
    wanted: int = 0


@dataclass
class Notes:
    """Everything that callers were told; lists are appended to by any thread."""

    answers: list[Answered] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    reads: list[Told] = field(default_factory=list)


class WellBehaved:
    """Callers that classify at a steady rate, each with few requests in flight."""

    def __init__(self, target: str, tokens: Sequence[str], images: Sequence[bytes], notes: Notes) -> None:
        """Prepare one connection for each token."""
        self._servers = [Connection(target, token=token) for token in tokens]
        self._requests = [classifier_pb2.ClassifyRequest(image=image, name=NAME, top_k=1) for image in images]
        self._notes = notes
        self._numbers = itertools.count()

    async def load(self, clients: int, rate: float, stop: asyncio.Event) -> None:
        """Classify at a rate until told to stop.

        Args:
            clients: of each caller.
            rate: of all together, a second.
            stop: ends it.
        """
        pause_s = clients * len(self._servers) / rate
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                group.create_task(self._caller(server, clients, pause_s, stop))

    async def _caller(self, server: Connection, clients: int, pause_s: float, stop: asyncio.Event) -> None:
        async with open_aio_channel(server) as channel:
            classify = classifier_pb2_grpc.ClassifierStub(channel).Classify
            async with asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(self._client(classify, metadata_of(server), pause_s, stop))

    async def _client(self, classify: Any, metadata: Any, pause_s: float, stop: asyncio.Event) -> None:  # noqa: ANN401 - grpc's stubs are untyped
        due_s = time.monotonic() + CHANCE.uniform(0, pause_s)
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s + pause_s, time.monotonic() - pause_s)  # one who was held up does not make up for it
            image = next(self._numbers) % len(self._requests)
            sent_at = time.time()
            try:
                answer = await classify(self._requests[image], timeout=CLASSIFY_WITHIN_S, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                self._notes.answers.append(Answered(sent_at, time.time(), error.code().name, image))
            else:
                best = answer.predictions[0]
                got = Answered(sent_at, time.time(), OK, image, answer.version, best.label, best.probability)
                self._notes.answers.append(got)


class Worker:
    """A caller in a thread of its own.

    Whoever holds ``turn`` keeps it from beginning the next.
    """

    def __init__(self, target: str, token: str, notes: Notes, pause_s: float) -> None:
        """Connect as the caller with this token."""
        self._channel = open_channel(Connection(target, token=token))
        self.models = models_pb2_grpc.ModelsStub(self._channel)
        self.retraining = retraining_pb2_grpc.RetrainingStub(self._channel)
        self.notes = notes
        self.turn = threading.Lock()
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> bool:
        """End after the present call; return whether it did."""
        self._stop.set()
        self._thread.join(JOB_WITHIN_S + CALL_WITHIN_S)
        self._channel.close()
        return not self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stop.is_set()

    def step(self) -> None:
        """Do the next thing."""
        raise NotImplementedError

    def wait(self, seconds: float) -> None:
        """Wait, unless it is to end."""
        self._stop.wait(seconds)

    def _work(self) -> None:
        while not self._stop.is_set():
            with self.turn:
                self.step()
            self.wait(self._pause_s)


def tell(note: Told, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - any answer
    """Make a call and note how it ended; return the answer, or None."""
    try:
        answer = call()
    except grpc.RpcError as error:
        note.code, answer = error.code().name, None
    else:
        note.code = OK
    note.ended_at = time.time()
    return answer


class Operator(Worker):
    """Promotes and rolls back; every fourth time twice at once, from the same champion."""

    _steps: Final = itertools.count()
    _numbers: Final = itertools.count()

    def step(self) -> None:
        """Move the champion."""
        model = self._look()
        if model is None:
            return
        match next(self._steps) % 4:
            case 2:
                self._rollback(model.champion)
            case 3:
                twins = [threading.Thread(target=self._rollback, args=(model.champion,)) for _ in range(2)]
                for twin in twins:
                    twin.start()
                for twin in twins:
                    twin.join()
            case _:
                others = [version for version in model.versions if version != model.champion]
                self._promote(CHANCE.choice(others or list(model.versions)), model.champion)

    def _look(self) -> models_pb2.Model | None:
        note = Told("get", "", time.time())
        request = models_pb2.GetModelRequest(name=NAME)
        answer = tell(note, lambda: self.models.GetModel(request, timeout=CALL_WITHIN_S))
        return answer.model if answer else None

    def _promote(self, version: int, champion: int) -> None:
        note = Told("promote", f"promote {next(self._numbers)}", time.time(), wanted=version)
        request = models_pb2.PromoteRequest(name=NAME, version=version, expected_champion=champion)
        self._move(note, self.models.Promote, request)

    def _rollback(self, champion: int) -> None:
        note = Told("rollback", f"rollback {next(self._numbers)} from {champion}", time.time(), wanted=champion)
        self._move(note, self.models.Rollback, models_pb2.RollbackRequest(name=NAME, expected_champion=champion))

    def _move(self, note: Told, rpc: Any, request: Any) -> None:  # noqa: ANN401 - grpc's stubs are untyped
        """Send a move, and resend it after an unknown end.

        It has the same id then, as with gRPC's own retries.
        """
        request.why = request.request_id = note.key
        for _ in range(ATTEMPTS):
            done = tell(note, lambda: rpc(request, timeout=CALL_WITHIN_S))
            note.version = done.model.served_version if done else 0
            if note.code not in UNKNOWN_ENDS:
                break
        self.notes.told.append(note)


class Labeller(Worker):
    """Labels pictures, and sends again what it was not told of."""

    _next = 0
    _again: tuple[int, ...] = ()

    def step(self) -> None:
        """Send a handful of pictures in one stream."""
        fresh = LABELS_AT_ONCE - len(self._again)
        numbers = (*self._again, *range(self._next, self._next + fresh))
        self._next += fresh
        self._again = tuple(int(note.key) for note in self._send(numbers) if note.code != OK)

    def _send(self, numbers: Sequence[int]) -> list[Told]:
        notes = [Told("label", str(number), time.time()) for number in numbers]
        requests = [
            retraining_pb2.AddExamplesRequest(image=labelled(number), label=label_of(number), name=NAME)
            for number in numbers
        ]
        end = "UNKNOWN"
        try:
            answers = self.retraining.AddExamples(iter(requests), timeout=CALL_WITHIN_S)
            for note, answer in zip(notes, answers, strict=False):
                note.code, note.outcome = OK, word_of(retraining_pb2.AddExamplesResponse.Outcome, answer.outcome)
        except grpc.RpcError as error:
            end = error.code().name
        for note in notes:
            note.code, note.ended_at = note.code or end, time.time()
        self.notes.told += notes
        return notes


class Retrainer(Worker):
    """Asks for retrains, and follows each to its end."""

    _numbers: Final = itertools.count()

    def step(self) -> None:
        """Retrain once; half of them go live whatever the gate says."""
        number = next(self._numbers)
        note = Told("retrain", f"retrain {number}", time.time())
        gate = retraining_pb2.GateMode.GATE_MODE_OFF if number % 2 else retraining_pb2.GateMode.GATE_MODE_AUTO
        request = retraining_pb2.RetrainRequest(name=NAME, idempotency_key=note.key, gate=gate)
        begun = tell(note, lambda: self.retraining.Retrain(request, timeout=CALL_WITHIN_S))
        self.notes.told.append(note)
        if begun:
            note.job = begun.job.id
            self._follow(note)

    def _follow(self, note: Told) -> None:
        ends_s = time.monotonic() + JOB_WITHIN_S
        request = retraining_pb2.GetRetrainJobRequest(id=note.job)
        while time.monotonic() < ends_s and not self.is_stopping:
            seen = Told("get job", note.job, time.time())
            now = tell(seen, lambda: self.retraining.GetRetrainJob(request, timeout=CALL_WITHIN_S))
            if now and now.job.HasField("finished_at"):
                note.outcome = word_of(retraining_pb2.RetrainJob.State, now.job.state)
                note.version = now.job.version
                return
            self.wait(0.5)


class Reader(Worker):
    """Looks at the models, which needs no database."""

    def step(self) -> None:
        """Ask for one model, and for all."""
        self._read("GetModel", self.models.GetModel, models_pb2.GetModelRequest(name=NAME))
        self._read("ListModels", self.models.ListModels, models_pb2.ListModelsRequest())

    def _read(self, kind: str, rpc: Any, request: Any) -> None:  # noqa: ANN401 - grpc's stubs are untyped
        note = Told(kind, "", time.time())
        tell(note, lambda: rpc(request, timeout=CALL_WITHIN_S))
        self.notes.reads.append(note)


def labelled(number: int) -> bytes:
    """Return a numbered picture of the labeller, unknown to every version."""
    return picture(label_of(number), 10_000 + number)


def label_of(number: int) -> str:
    """Return its label."""
    return COLOURS[number % len(COLOURS)]
