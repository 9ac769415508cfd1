"""GPU memory by NVML; the ``gpu`` extra brings the library."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from serving.telemetry.metrics import MetricFamily


def gpu_memory_reader() -> Callable[[], list[MetricFamily]] | None:
    """Return a reader of the memory of all GPUs, or None without NVML."""
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return reader_by(pynvml)


def reader_by(nvml: ModuleType) -> Callable[[], list[MetricFamily]] | None:
    """Return a reader by ``nvml``, or None without a driver."""
    try:
        nvml.nvmlInit()
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return None
    return partial(_read, nvml, devices)


def _read(nvml: Any, devices: list[Any]) -> list[MetricFamily]:  # noqa: ANN401 - the package ships no type information
    values: dict[tuple[str, ...], float] = {}
    for index, device in enumerate(devices):
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        values[str(index), "used"] = memory.used
        values[str(index), "total"] = memory.total
    return [MetricFamily("regraft_gpu_memory_bytes", "Memory of each GPU, by all processes.", ("gpu", "kind"), values)]
