"""Stand-ins that a test can hold up: a session behind a gate, a picture and a crop that take their time."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import IMAGE
from regraft.model.card import ModelCard
from regraft.model.session import OpenSession, open_session
from regraft.stores.backbones import StoredBackbone
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan
from tests.waiting import PATIENCE_S


class Panic(BaseException):
    """What comes out of native code where it gives up is no `Exception` either."""


class GatedSession:
    """A real session on a CPU whose runs wait at a gate; it keeps the pictures that it was fed."""

    def __init__(self, model: Path | bytes) -> None:
        self._session = open_session(model, provider="cpu", threads=1).session
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[npt.NDArray[np.uint8]] = []
        self.threads: list[int] = []
        self.failures: deque[Exception] = deque()

    def run(self, names: Sequence[str], feed: dict[str, npt.NDArray[Any]]) -> Any:  # noqa: ANN401 - as ONNX Runtime's
        self.batches.append(feed[IMAGE])
        self.threads.append(threading.get_ident())
        assert self.gate.wait(PATIENCE_S)
        if self.failures:
            raise self.failures.popleft()
        return self._session.run(names, feed)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no run through until the block ends."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


class Engines:
    """Opens engines on gated sessions, with a plan of the test's own; call it as `engine.open_engine`."""

    def __init__(self, plan: ExecutionPlan | None = None) -> None:
        self.plan = plan or ExecutionPlan(lanes=1, threads=1, max_batch=4)
        self.sessions: list[GatedSession] = []
        self.refusal: Exception | None = None
        self.new_gates_are_open = True

    def __call__(self, model: Path | bytes, _card: ModelCard | StoredBackbone) -> Engine:
        if self.refusal:
            raise self.refusal
        session = GatedSession(model)
        if not self.new_gates_are_open:
            session.gate.clear()
        self.sessions.append(session)
        return Engine(OpenSession(session, "cpu"), self.plan)

    def close_all_gates(self) -> None:
        for session in self.sessions:
            session.gate.clear()

    def open_all_gates(self) -> None:
        for session in self.sessions:
            session.gate.set()


class SlowPicture(bytes):
    """A picture whose decoding waits at a gate: the first thing that a decoder's thread asks for is the length."""

    gate: threading.Event
    looked_at: threading.Event

    def __new__(cls, data: bytes) -> Self:
        self = super().__new__(cls, data)
        self.gate = threading.Event()
        self.looked_at = threading.Event()
        return self

    def __len__(self) -> int:
        if threading.current_thread().name.startswith(("lane", "decode")):
            self.looked_at.set()
            assert self.gate.wait(PATIENCE_S)
        return super().__len__()


class SlowCrop:
    """A crop that keeps the lane that runs it busy until its gate opens."""

    def __init__(self, gate: threading.Event, crop_px: int) -> None:
        self.reached = threading.Event()
        self._gate = gate
        self._pixels = np.zeros((crop_px, crop_px, 3), np.uint8)

    def __array__(self, dtype: object = None, *, copy: bool | None = None) -> npt.NDArray[np.uint8]:
        self.reached.set()
        assert self._gate.wait(PATIENCE_S)
        return self._pixels
