from types import ModuleType, SimpleNamespace
from typing import Any

from serving.telemetry.gpu_memory import reader_by
from serving.telemetry.metrics import Metrics


class FakeNvml(ModuleType):
    """NVML with two GPUs, or without a driver."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, has_driver: bool = True) -> None:
        super().__init__("pynvml")
        self._has_driver = has_driver
        self.used = [3, 5]

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        if not self._has_driver:
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 - NVML's name
        return index

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:  # noqa: N802, ANN401 - NVML's name; its type is a C struct
        return SimpleNamespace(used=self.used[device], total=80)


def test_the_memory_of_each_gpu_is_read_at_every_scrape() -> None:
    nvml, metrics = FakeNvml(), Metrics()
    read = reader_by(nvml)
    assert read
    metrics.watch(read)

    def shown(gpu: str, kind: str) -> float | None:
        return metrics.registry.get_sample_value("regraft_gpu_memory_bytes", {"gpu": gpu, "kind": kind})

    assert (shown("0", "used"), shown("1", "used"), shown("1", "total")) == (3, 5, 80)
    nvml.used[1] = 60
    assert shown("1", "used") == 60


def test_without_a_driver_nothing_is_shown() -> None:
    assert reader_by(FakeNvml(has_driver=False)) is None
