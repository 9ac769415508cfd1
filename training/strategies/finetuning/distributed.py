"""Processes of a training run, as ``torchrun`` starts them. Imports torch."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from regraft.machine import keep_freed_blocks

_PATIENCE: Final = timedelta(hours=24)
"""How long a process waits for the others: the first one alone embeds, fits and exports meanwhile."""


class Processes:
    """This process among those of the run; collective calls need all.

    Attributes:
        rank: 0 for the one that scans, exports and publishes.
        count: how many there are.
        device: where this one computes.
    """

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        """Describe this process; see `processes` for the group itself."""
        self.rank, self.count, self.device = rank, count, device

    @property
    def is_first(self) -> bool:
        """Role of the process that reads, writes and reports."""
        return self.rank == 0

    def share(self, model: nn.Module, *, with_buffers: bool) -> nn.Module:
        """Return the model such that the gradients of all processes are averaged.

        Let go of it before the processes part: torch aborts now and then at the exit of a process that has one.
        """
        if self.count == 1:
            return model
        return DistributedDataParallel(model, forward_sync_buffers=with_buffers)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
        return bool(flags.item())

    def total(self, value: float) -> float:
        """Return the sum over all processes."""
        if self.count == 1:
            return value
        sums = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return float(sums.item())

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever can be pickled
        """Return everybody's value, in the order of rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:  # noqa: ANN401 - as above
        """Return the first process's value."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the processes of ``torchrun``, or be alone, for the block."""
    keep_freed_blocks()
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if count == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Objects travel by gloo, tensors of a GPU by nccl.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
        gc.collect()  # a model that was shared is in a cycle, and torch aborts if the group outlives Python
