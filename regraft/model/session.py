"""ONNX Runtime sessions, on a provider that is proven.

ONNX Runtime falls back to the CPU without an error when CUDA cannot load. `open_session` proves the provider instead:
it loads the CUDA provider's library itself to learn the reason when that fails, reads the effective provider back from
the session, and the caller's warm-up run completes the proof.
"""

import ctypes
import functools
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from regraft.errors import ArtifactError, MissingPackageError, ProviderError, first_line

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime

_DRIVER: Final = "libcuda.so.1"
_CUDA: Final = "CUDAExecutionProvider"
_NO_MEMORY: Final = "Failed to allocate memory for requested buffer"
"""Of both providers' arenas; the error's class is the one of any other failure."""
ProviderChoice = Literal["auto", "cuda", "cpu"]
Arena = Literal["power-of-two", "as-requested"]
Arithmetic = Literal["cpu", "cuda fp32", "cuda tf32"]
"""The arithmetic of a session. TF32 multiplies with 10 bits of mantissa, fp32 with 23."""


@dataclass(frozen=True)
class CudaOptions:
    """Settings of a session on CUDA; without CUDA they mean nothing.

    Attributes:
        device: number of the GPU, of those that ``CUDA_VISIBLE_DEVICES`` leaves.
        memory_bytes: the most that a session may take of its memory; any if 0.
        arena: ``power-of-two`` makes room for twice as much each time that memory does not suffice, ``as-requested``
            for just what is needed, which leaves more of it to others and takes longer.
        tf32: lets CUDA multiply in TF32, as GPUs since Ampere do faster; its embeddings are off by up to a hundredth.
        heads_bytes: the most that heads may take on the GPU beside the session, but for those of one batch.
    """

    device: int = 0
    memory_bytes: int = 0
    arena: Arena = "power-of-two"
    tf32: bool = False
    heads_bytes: int = 2**30

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of a session on CUDA."""
        return "cuda tf32" if self.tf32 else "cuda fp32"

    def by_name(self) -> dict[str, str]:
        """Return the options by ONNX Runtime's names."""
        arenas: dict[Arena, str] = {"power-of-two": "kNextPowerOfTwo", "as-requested": "kSameAsRequested"}
        # The default search tunes anew for every batch size, which live requests would pay for. TF32 is on by default.
        return {
            "device_id": str(self.device),
            "arena_extend_strategy": arenas[self.arena],
            "cudnn_conv_algo_search": "HEURISTIC",
            "use_tf32": str(int(self.tf32)),
            **({"gpu_mem_limit": str(self.memory_bytes)} if self.memory_bytes else {}),
        }


DEFAULT_CUDA: Final = CudaOptions()


@dataclass(frozen=True)
class OpenSession:
    """An open session, its provider and any fallback.

    Attributes:
        session: the ONNX Runtime session; its ``run`` is thread-safe. Freed when the last reference goes.
        provider: ``cuda`` or ``cpu``: what the session really uses.
        fallback_reason: why it is not CUDA although CUDA was asked for, or empty.
        cuda: how it uses CUDA, if it does.
        on_cpu: where it uses CUDA, how many nodes run on the CPU nevertheless, by operator. Each costs copies to the
            host and back in every run.
    """

    session: "onnxruntime.InferenceSession"
    provider: Literal["cuda", "cpu"]
    fallback_reason: str = ""
    cuda: CudaOptions = DEFAULT_CUDA
    on_cpu: Mapping[str, int] = field(default_factory=dict)

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of the session."""
        return "cpu" if self.provider == "cpu" else self.cuda.arithmetic


def open_session(
    model: Path | bytes,
    *,
    provider: ProviderChoice,
    threads: int,
    operators: Path | None = None,
    cuda: CudaOptions = DEFAULT_CUDA,
) -> OpenSession:
    """Open a session on ``model``.

    Args:
        model: path or serialised bytes of an ONNX model without external data.
        provider: ``auto`` takes CUDA where it works and says why where it does not; ``cuda`` insists.
        threads: threads of one ``run`` on the CPU; 1 where several runs go on at once.
        operators: a library of operators that are not ONNX Runtime's own.
        cuda: how CUDA is used where it works.

    Raises:
        ProviderError: ``provider`` is ``cuda`` and CUDA does not work; the text is the reason.
        ArtifactError: ONNX Runtime refuses the model.
        MissingPackageError: neither ONNX Runtime package is installed.
    """
    ort = require_onnxruntime()
    reason = "" if provider == "cpu" else _why_cuda_cannot_load(ort)
    if provider == "cuda" and reason:
        raise ProviderError(f"provider cuda was asked for, but {reason}")
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    where = ""
    if provider != "cpu" and not reason:
        providers.insert(0, (_CUDA, cuda.by_name()))
        where = f" on GPU {cuda.device}"
    source = model if isinstance(model, bytes) else str(model)
    options = _options(ort, threads)
    if operators is not None:
        options.register_custom_ops_library(str(operators))
    try:
        session = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime refuses the model{where}: {first_line(error)}") from error
    session.disable_fallback()
    effective: Literal["cuda", "cpu"] = "cuda" if _CUDA in session.get_providers() else "cpu"
    if provider != "cpu" and effective == "cpu" and not reason:
        reason = "ONNX Runtime could not use CUDA here (its own message is on standard error)"
    if provider == "cuda" and effective == "cpu":
        raise ProviderError(f"provider cuda was asked for, but {reason}")
    on_cpu = nodes_elsewhere(session, _CUDA) if effective == "cuda" else {}
    return OpenSession(session, effective, reason, cuda, on_cpu)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a run failed for want of memory, anywhere."""
    return _NO_MEMORY in str(error)


def nodes_elsewhere(session: Any, provider: str) -> dict[str, int]:  # noqa: ANN401 - the package ships no types
    """Count a session's nodes on other providers, by operator.

    Args:
        session: opened here, or with ``session.record_ep_graph_assignment_info`` set.
        provider: its name as ONNX Runtime has it, ``CUDAExecutionProvider``.
    """
    parts = (part for part in session.get_provider_graph_assignment_info() if part.ep_name != provider)
    return dict(Counter(node.op_type for part in parts for node in part.get_nodes()).most_common())


def arithmetic_here(provider: ProviderChoice, cuda: CudaOptions = DEFAULT_CUDA) -> Arithmetic:
    """Return the arithmetic of a session opened here."""
    return "cpu" if provider == "cpu" or _why_cuda_cannot_load(require_onnxruntime()) else cuda.arithmetic


def to_device(array: "npt.NDArray[Any]", device: str, number: int = 0) -> Any:  # noqa: ANN401 - no type information
    """Copy an array to ``cuda`` or ``cpu``, for binding."""
    return require_onnxruntime().OrtValue.ortvalue_from_numpy(array, device, number)


def only_device(number: int) -> str:
    """Return the ``CUDA_VISIBLE_DEVICES`` of a child with one of our GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(number)
    devices = visible.split(",")
    return devices[number].strip() if number < len(devices) else visible


def require_onnxruntime() -> Any:  # noqa: ANN401 - the package ships no type information
    """Import ONNX Runtime, without the telemetry of newer builds.

    Raises:
        MissingPackageError: neither package is installed; the text names the extras that bring them.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read as the library loads; children inherit it
    try:
        import onnxruntime  # noqa: PLC0415 - optional: the caller must hear which extra to install
    except ImportError as error:
        raise MissingPackageError(
            "ONNX Runtime is not installed. Install one of: pip install 'regraft[cpu]'  (any machine)   "
            "pip install 'regraft[gpu]'  (NVIDIA, CUDA 13)"
        ) from error
    return onnxruntime


def _options(ort: Any, threads: int) -> Any:  # noqa: ANN401 - the package ships no type information
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns of every initializer that is an input, which ours are by design
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for `nodes_elsewhere`
    return options


@functools.cache  # loading the CUDA libraries takes half a second, and the answer does not change
def _why_cuda_cannot_load(ort: Any) -> str:  # noqa: ANN401 - the package ships no type information
    """Return the reason why CUDA cannot load, or nothing."""
    if _CUDA not in ort.get_available_providers():
        return "the installed onnxruntime has no CUDA provider: pip install 'regraft[gpu]' in a fresh environment"
    try:
        ctypes.CDLL(_DRIVER)  # first, since without it all of CUDA's own libraries are loaded in vain
    except OSError as error:
        return f"the CUDA provider's library cannot be loaded ({error}): is the NVIDIA driver installed?"
    ort.preload_dlls()
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"the CUDA provider's library cannot be loaded ({error})"
    return ""
