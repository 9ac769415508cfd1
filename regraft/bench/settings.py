"""Settings of a load test, and its schedule."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError

Arrivals = Literal["poisson", "even"]


@dataclass(frozen=True)
class BenchSettings:
    """The requests of a load test: pictures, target and pace.

    Attributes:
        images: encoded pictures, sent in turn; all are held in memory.
        server: where it is, and how to talk to it.
        name: the model; may be empty while the server has just one.
        concurrency: clients of the closed loop.
        pause_s: of each of them, between an answer and its next request.
        rate: requests a second of the open loop; None for the closed loop.
        arrivals: of the open loop, ``poisson`` (independent users) or ``even``.
        duration_s: how long it is measured.
        warm_up_s: how long requests are sent before that, and not counted.
        deadline_ms: of each request, from the time it is sent.
        seed: of the Poisson arrivals.
    """

    images: tuple[bytes, ...] = field(repr=False)
    server: Connection = field(default_factory=Connection)
    name: str = ""
    concurrency: int = 8
    pause_s: float = 0.0
    rate: float | None = None
    arrivals: Arrivals = "poisson"
    duration_s: float = 10.0
    warm_up_s: float = 1.0
    deadline_ms: float = 30_000.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that could not be run."""
        if not self.images:
            raise InvalidRequestError("there are no pictures to send")
        if self.arrivals not in get_args(Arrivals):
            raise InvalidRequestError(f"--arrivals {self.arrivals}: one of {', '.join(get_args(Arrivals))}")
        if self.concurrency < 1:
            raise InvalidRequestError(f"--concurrency {self.concurrency}: at least 1")
        if not 0 <= self.pause_s < math.inf:
            raise InvalidRequestError(f"pause_s {self.pause_s}: at least 0")
        if not 0 <= self.warm_up_s < math.inf:
            raise InvalidRequestError(f"--warm-up {self.warm_up_s}: at least 0")
        for flag in ("rate", "duration_s", "deadline_ms"):
            value = getattr(self, flag)
            if value is not None and not 0 < value < math.inf:
                raise InvalidRequestError(f"--{flag.removesuffix('_s').replace('_', '-')} {value}: more than 0")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without pictures and secrets."""
        fields = asdict(self)
        fields["images"] = len(fields["images"])
        del fields["server"]
        return {"target": self.server.target, **fields}


def due_times(settings: BenchSettings) -> Iterator[float]:
    """Yield an open loop's due times, in seconds from its start."""
    assert settings.rate is not None
    random = np.random.default_rng(settings.seed)
    due_s = 0.0
    for number in itertools.count():
        if settings.arrivals == "even":
            due_s = number / settings.rate
        else:
            due_s += random.exponential(1 / settings.rate)
        if due_s >= settings.warm_up_s + settings.duration_s:
            return
        yield due_s
