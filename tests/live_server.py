"""A real server inside the test's process."""

import concurrent.futures
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from regraft.bench.settings import BenchSettings
from regraft.bench.steady_load import Load
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.image.spec import Crop
from regraft.machine import cpu_budget
from regraft.stores.models import FEATURES_FILE, ModelStore
from serving.inference.backbone import InferenceRequest
from serving.server import Ready, Server
from serving.settings import Settings
from tests.grpc_loop import grpc_loop
from tests.serving.fakes import SlowCrop
from tests.serving.metric_samples import value_of
from tests.tiny import picture
from tests.waiting import PATIENCE_S, wait_until

PLAN = f"{cpu_budget()}x1x4"
"""Measured, it would be another one on another day, and each server would take a second more to start."""


class LiveServer:
    """Started on entry, stopped on exit; ``client`` is connected to it."""

    def __init__(self, store: ModelStore, **settings: Any) -> None:  # noqa: ANN401 - whatever `Settings` takes
        places = {"store": store.root, "grpc": "127.0.0.1:0", "metrics": "127.0.0.1:0", "plan": PLAN}
        self.settings = Settings(**{**places, "provider": "cpu", "reload_every_s": 0.05, "grace_s": 5.0, **settings})
        self.server: Server
        self.ready: Ready
        self.client: Client
        self._loop = grpc_loop()
        self._complaints = len(self._loop.complaints)
        self._stopping: concurrent.futures.Future[int] | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ready.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ready.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ready.metrics_port}/metrics"

    def __enter__(self) -> Self:
        self.ready = self._loop.run(self._start())
        self.client = Client(self.target, timeout_s=PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop().result(PATIENCE_S)
        self.client.close()
        complaints = self._loop.complaints[self._complaints :]
        assert not complaints, complaints

    def stop(self) -> "concurrent.futures.Future[int]":
        """Begin to stop the server, once; the result is how many calls were cut."""
        if self._stopping is None:
            self._stopping = self._loop.begin(self.server.stop())
        return self._stopping

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of a metric now, summed over the labels that are not given."""
        return value_of(self.server.metrics.registry, name, labels)

    @contextmanager
    def busy_lanes(self, name: str = "") -> Iterator[threading.Event]:
        """Keep every lane of a model busy until the block ends, or the event that is yielded is set."""
        served = self.server.models.get(name)
        gate = threading.Event()
        crops = [SlowCrop(gate, served.card.image.crop_px) for _ in range(served.backbone.engine.plan.lanes)]
        questions = [InferenceRequest(cast("Crop", crop), served.card.image, served.head) for crop in crops]
        running = [self._loop.begin(served.backbone.infer(question)) for question in questions]
        try:
            wait_until(lambda: all(crop.reached.is_set() for crop in crops))
            yield gate
        finally:
            gate.set()
            concurrent.futures.wait(running, PATIENCE_S)

    async def _start(self) -> Ready:
        self.server = Server(self.settings)
        try:
            return await self.server.start()
        except BaseException:
            await self.server.stop()
            raise


def background_load(target: str, *, clients: int, pause_s: float = 0.0) -> Load:
    """Return a load of red and blue pictures, on this process's event loop."""
    pictures = (picture("red"), picture("blue"))
    settings = BenchSettings(pictures, Connection(target), concurrency=clients, pause_s=pause_s)
    return Load(settings, grpc_loop().begin)


@contextmanager
def stalled_retrain(store: ModelStore, name: str = "colours") -> Iterator[None]:
    """Let every retrain of the present champion come to RUNNING and stand still there, reading a pipe."""
    features = _features_of_champion(store, name)
    whole = features.read_bytes()
    features.unlink()
    os.mkfifo(features)
    try:
        yield
    finally:
        beside = features.with_name("whole")  # a process that begins meanwhile finds the one or the other
        beside.write_bytes(whole)
        beside.replace(features)


@contextmanager
def reading_the_pipe(store: ModelStore, name: str = "colours") -> Iterator[None]:
    """Run a block while a stalled retrain reads its pipe, and asks nobody anything; then it finds nothing there."""
    pipe = _features_of_champion(store, name)
    ends: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # nobody reads it yet
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    wait_until(is_read)
    try:
        yield
    finally:
        os.close(ends[0])


def _features_of_champion(store: ModelStore, name: str) -> Path:
    version = store.champion(name)
    assert version is not None
    return store.folder(name, version) / FEATURES_FILE


def process_of_job(job_id: str) -> int:
    """Return the id of the process that runs a retrain job."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            if b"training.retrain" in arguments and job_id.encode() in arguments:
                return int(entry.name)
    raise AssertionError(f"no process runs job {job_id}")
