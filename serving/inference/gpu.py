"""GPU runs: heads stay on the device, batches come in few sizes.

A head that is fed like any input is copied to the device on every run, megabytes where there are many labels. And each
batch size that was never seen before costs a search for convolution algorithms and memory that is never given back, so
batches are filled up to powers of two, which the warm-up has all run.

Where a batch holds pictures for several heads, all of them are one product on the device: their rows below each other,
multiplied with the embeddings, which have not left it.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from regraft.image.spec import Crop
from regraft.model.artifact import EMBEDDING, IMAGE, NOVELTY, OPSET, PROBABILITIES, FloatArray, Head, blank_head
from regraft.model.session import OpenSession, open_session, to_device

OUTPUTS: Final = (PROBABILITIES, EMBEDDING, NOVELTY)
_HEADS_AT_ONCE: Final = 32
"""Of one product; the largest batch of any plan has no more pictures."""
_PARTS: Final = ("weight", "prototypes", "whitening")
_PRODUCTS: Final = "products"

Tensors: TypeAlias = dict[str, Any]
"""By the names of the graph's inputs, on a device. ONNX Runtime ships no types."""


class DeviceRunner:
    """A session with inputs bound to a device; safe in several threads at once."""

    def __init__(self, opened: OpenSession) -> None:
        """Run a session on its device; only tests do so on a CPU."""
        self._opened = opened
        self._device = (opened.provider, opened.cuda.device if opened.provider == "cuda" else 0)
        self._heads = DeviceHeads(self._device, opened.cuda.heads_bytes)

    def run(self, crops: Sequence[Crop], head: Head) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return probabilities [N, K], embeddings [N, D] and novelty [N] of N crops."""
        binding = self._bound(crops, head)
        for name in OUTPUTS:
            binding.bind_output(name, "cpu")
        self._opened.session.run_with_iobinding(binding)
        probabilities, embedding, novelty = (array[: len(crops)] for array in binding.copy_outputs_to_cpu())
        return probabilities, embedding, novelty

    def run_heads(
        self, crops: Sequence[Crop], by_head: Sequence[tuple[Head, list[int]]]
    ) -> tuple[FloatArray, list[tuple[FloatArray, FloatArray]]]:
        """Return all embeddings [N, D], and each head's probabilities and novelty of its rows."""
        binding = self._bound(crops, blank_head(by_head[0][0].weight.shape[1]))
        binding.bind_output(EMBEDDING, *self._device)
        self._opened.session.run_with_iobinding(binding)
        (on_device,) = binding.get_outputs()
        (embedding,) = (array[: len(crops)] for array in binding.copy_outputs_to_cpu())
        products = self._products(on_device, [head for head, _ in by_head])
        pairs = zip(by_head, products, strict=True)
        return embedding, [head.answers(product[rows], embedding[rows]) for (head, rows), product in pairs]

    def _bound(self, crops: Sequence[Crop], head: Head) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        batch = np.zeros((bucket(len(crops)), *crops[0].shape), np.uint8)
        np.stack(crops, out=batch[: len(crops)])
        binding = self._opened.session.io_binding()
        binding.bind_cpu_input(IMAGE, batch)
        for name, value in self._heads.get(head).items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _products(self, embedding: Any, heads: Sequence[Head]) -> Iterator[FloatArray]:  # noqa: ANN401 - likewise
        """Yield the product [N, 2 K + R] of embeddings with each head."""
        blank = self._heads.get(blank_head(heads[0].weight.shape[1]))
        for start in range(0, len(heads), _HEADS_AT_ONCE):
            some = heads[start : start + _HEADS_AT_ONCE]
            tensors = [self._heads.get(head) for head in some]
            binding = self._multiplier.session.io_binding()
            binding.bind_ortvalue_input(EMBEDDING, embedding)
            for slot in range(_HEADS_AT_ONCE):
                of_slot = tensors[slot] if slot < len(some) else blank
                for part in _PARTS:
                    binding.bind_ortvalue_input(f"{part}{slot}", of_slot[f"head.{part}"])
            binding.bind_output(_PRODUCTS, "cpu")
            self._multiplier.session.run_with_iobinding(binding)
            (products,) = binding.copy_outputs_to_cpu()
            widths = np.cumsum([2 * len(head.bias) + len(head.whitening) for head in some])
            yield from np.split(products, widths, axis=1)[: len(some)]

    @cached_property
    def _multiplier(self) -> OpenSession:
        """The session of the product, on the same device."""
        model = _multiplier_graph().SerializeToString()
        return open_session(model, provider=self._opened.provider, threads=1, cuda=self._opened.cuda)


class DeviceHeads:
    """A cache of heads on a device; safe in any thread."""

    def __init__(self, device: tuple[str, int], most_bytes: int) -> None:
        """Keep the last living heads of up to ``most_bytes`` on a device."""
        self._device = device
        self._most_bytes = most_bytes
        self._entries: OrderedDict[int, tuple[weakref.ref[Head], Tensors, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """The bytes of the heads on the device."""
        return sum(size for _, _, size in list(self._entries.values()))

    def get(self, head: Head) -> Tensors:
        """Return a head's tensors on the device, copied at the first use."""
        key = id(head)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                feed = head.feed()
                tensors = {name: to_device(array, *self._device) for name, array in feed.items()}
                reference = weakref.ref(head, lambda _head: self._entries.pop(key, None))  # before another gets its id
                entry = self._entries[key] = (reference, tensors, sum(array.nbytes for array in feed.values()))
                while self.size_bytes > self._most_bytes and len(self._entries) > 1:
                    self._entries.popitem(last=False)
            self._entries.move_to_end(key)
            return entry[1]


def bucket(count: int) -> int:
    """Return the least power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()


def _multiplier_graph() -> Any:  # noqa: ANN401 - a ModelProto, which onnx types loosely
    """Return the graph of embeddings [N, D] times all parts of several heads."""
    parts = [f"{part}{slot}" for slot in range(_HEADS_AT_ONCE) for part in _PARTS]
    rows = "all rows"
    graph = helper.make_graph(
        [
            helper.make_node("Concat", parts, [rows], "gather", axis=0),
            helper.make_node("Gemm", [EMBEDDING, rows], [_PRODUCTS], "multiply", transB=1),
        ],
        "heads",
        [
            helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", "D"]),
            *(helper.make_tensor_value_info(part, TensorProto.FLOAT, [f"rows of {part}", "D"]) for part in parts),
        ],
        [helper.make_tensor_value_info(_PRODUCTS, TensorProto.FLOAT, ["N", "M"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
