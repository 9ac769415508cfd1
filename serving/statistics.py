"""What each model has done since the server started, in the terms of the Open Inference Protocol."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass
class Statistics:
    """Of one model. Belongs to the event loop's thread.

    Attributes:
        success: requests that were answered.
        fail: requests that were not.
        stages: decode, queue and inference, of single pictures.
        pictures: that were answered.
        runs: of the network; a picture that shared a run with others counts for its share.
        last_ms: when the last picture was answered, in milliseconds since 1970.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    stages: dict[str, Duration] = field(
        default_factory=lambda: {s: Duration() for s in ("decode", "queue", "inference")}
    )
    pictures: int = 0
    runs: float = 0.0
    last_ms: int = 0

    def answered(self, seconds: Mapping[str, float], batch: int) -> None:
        """Count a picture that went through the network with ``batch`` pictures in all."""
        for stage, duration in self.stages.items():
            duration.add(seconds[stage])
        self.pictures += 1
        self.runs += 1 / batch
        self.last_ms = time.time_ns() // 1_000_000
