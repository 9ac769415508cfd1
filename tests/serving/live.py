"""A real server inside the test's process, on an event loop in a thread of its own."""

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from regraft.client import Client
from regraft.image import Crop
from regraft.store import FEATURES_FILE, ModelStore
from serving.server import Ready, Server
from serving.settings import Settings
from tests.serving.fakes import SlowCrop
from tests.serving.waiting import PATIENCE_S, wait_until

T = TypeVar("T")


class LiveServer:
    """Started on entry, stopped on exit; ``client`` is connected to it."""

    def __init__(self, store: ModelStore, **settings: Any) -> None:  # noqa: ANN401 - whatever `Settings` takes
        places = {"store": store.root, "grpc": "127.0.0.1:0", "metrics": "127.0.0.1:0"}
        self.settings = Settings(**{**places, "provider": "cpu", "reload_every_s": 0.05, "grace_s": 5.0, **settings})
        self.server: Server
        self.ready: Ready
        self.client: Client
        self._loop: asyncio.AbstractEventLoop
        self._started: concurrent.futures.Future[Ready] = concurrent.futures.Future()
        self._leave: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="live-server")

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ready.grpc_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.ready = self._started.result(PATIENCE_S)
        except BaseException:
            self._thread.join(PATIENCE_S)
            raise
        self.client = Client(self.target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Begin something on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of a metric now."""
        return self.server.metrics.registry.get_sample_value(name, labels)

    @contextmanager
    def busy_lanes(self, name: str = "") -> Iterator[threading.Event]:
        """Keep every lane of a model busy until the block ends, or the event that is yielded is set."""
        served = self.server.models.get(name)
        gate = threading.Event()
        crops = [SlowCrop(gate, served.card.image.crop_px) for _ in range(served.backbone.engine.plan.lanes)]
        running = [self.begin(served.backbone.batcher.submit((cast(Crop, crop), served.head))) for crop in crops]
        try:
            wait_until(lambda: all(crop.reached.is_set() for crop in crops))
            yield gate
        finally:
            gate.set()
            concurrent.futures.wait(running, PATIENCE_S)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        self.server = Server(self.settings)
        try:
            self._started.set_result(await self.server.start())
            await self._leave.wait()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            self._started.set_exception(error)
        finally:
            await self.server.stop()


@contextmanager
def stalled_retrain(store: ModelStore, name: str = "colours") -> Iterator[None]:
    """Let every retrain of the present champion come to RUNNING and stand still there, reading a pipe."""
    version = store.champion(name)
    assert version is not None
    features = store.folder(name, version) / FEATURES_FILE
    whole = features.read_bytes()
    features.unlink()
    os.mkfifo(features)
    try:
        yield
    finally:
        features.unlink()
        features.write_bytes(whole)


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
