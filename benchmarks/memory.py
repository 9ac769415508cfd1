"""Resident memory of a process in bytes, as Linux counts it."""

from pathlib import Path
from typing import Final

MB: Final = 2**20


def resident_bytes(process: int | str = "self") -> int:
    """Return what a process has in memory; raises `RuntimeError` where it is gone."""
    return _read(process, "VmRSS")


def peak_bytes(process: int | str = "self") -> int:
    """Return a process's peak memory since `forget_peak`, or since its start."""
    return _read(process, "VmHWM")


def forget_peak(process: int | str = "self") -> None:
    """Let a process's peak begin anew with what it has now."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def _read(process: int | str, field: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {process} is gone: it has no {field}")
