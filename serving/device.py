"""Running on a GPU: heads stay there, and batches come in few sizes.

A head that is fed like any input is copied to the device on every run, megabytes where there are many labels. And each
batch size that was never seen before costs a search for convolution algorithms and memory that is never given back, so
batches are filled up to powers of two, which the warm-up has all run.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from regraft.artifact import EMBEDDING, IMAGE, NOVELTY, PROBABILITIES, FloatArray, Head
from regraft.image import Crop
from regraft.runtime import to_device

OUTPUTS: Final = (PROBABILITIES, EMBEDDING, NOVELTY)
_MOST_HEADS: Final = 16
"""Kept on the device at once: those that answer, and those that swaps have just replaced."""


class DeviceRunner:
    """A session whose inputs are bound to a device. `run` may be called from several threads at once."""

    def __init__(self, session: Any, device: str = "cuda") -> None:  # noqa: ANN401 - ONNX Runtime ships no types
        """Run ``session`` on ``device``: ``cuda``, or ``cpu`` where a test wants to know."""
        self._session = session
        self._device = device
        self._heads: OrderedDict[int, tuple[Head, dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, crops: Sequence[Crop], head: Head) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return probabilities [N, K], embeddings [N, D] and novelty [N] of N crops, uint8 [P, P, 3] each."""
        batch = np.zeros((bucket(len(crops)), *crops[0].shape), np.uint8)
        np.stack(crops, out=batch[: len(crops)])
        binding = self._session.io_binding()
        binding.bind_cpu_input(IMAGE, batch)
        for name, value in self._on_device(head).items():
            binding.bind_ortvalue_input(name, value)
        for name in OUTPUTS:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        probabilities, embedding, novelty = (array[: len(crops)] for array in binding.copy_outputs_to_cpu())
        return probabilities, embedding, novelty

    def _on_device(self, head: Head) -> dict[str, Any]:
        """Return a head's tensors on the device; copied there when it is first used."""
        with self._lock:
            if id(head) not in self._heads:  # held below, so that no other object can take its id
                tensors = {name: to_device(array, self._device) for name, array in head.feed().items()}
                self._heads[id(head)] = (head, tensors)
                if len(self._heads) > _MOST_HEADS:
                    self._heads.popitem(last=False)
            self._heads.move_to_end(id(head))
            return self._heads[id(head)][1]


def bucket(count: int) -> int:
    """Return the least power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()
