"""Trial of a foreign backbone in a child with narrow limits.

A graph is a program. A few hundred bytes of it can ask for terabytes, or never end; and what parses and optimises it
is native code. So a file from elsewhere is first read and run in a child, which the kernel ends when it wants too much.
As a program this module reads the bytes of an ONNX file from standard input, and prints what is wrong with it.
"""

import os
import resource
import subprocess
import sys
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from regraft.errors import ArtifactError, RegraftError, first_line
from regraft.model.artifact import CARD_KEY, EMBEDDING, IMAGE, FloatArray, check_backbone
from regraft.model.session import open_session
from regraft.safe_path import module_command

_CPU_S: Final = 60
"""Seconds of a CPU; reading and running a file of 530 MB takes 3."""
_MEMORY_BYTES: Final = 2**31
_MEMORY_TIMES: Final = 8
"""The memory that a network may take: this, and so many times its file; one of 530 MB took 5 times its own."""
_PATIENCE_S: Final = 600.0
"""How long it may take on a busy machine, or hang."""
_REFUSED: Final = 3
_TOLERANCE: Final = 1e-3
"""Of the largest value: a picture beside another may be rounded otherwise."""
_IN_FULL: Final = 500


def try_backbone(data: bytes, cpu_s: int = _CPU_S) -> None:
    """Run `examine` in a child, which the kernel ends beyond limits.

    Args:
        data: of an ONNX file.
        cpu_s: the most seconds of a CPU that it may take.

    Raises:
        ArtifactError: as `examine`, or it wants more memory or time than any backbone.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [*module_command(__name__), str(cpu_s)]
    try:
        child = subprocess.run(
            command, input=data, capture_output=True, check=False, env=environment, timeout=_PATIENCE_S
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(f"the graph was tried for {_PATIENCE_S:g} s, to no end") from error
    if child.returncode == _REFUSED:
        raise ArtifactError(child.stdout.decode(errors="replace").strip()[:_IN_FULL])
    if child.returncode:
        raise ArtifactError(
            f"the graph wants more than any backbone: it was ended (exit code {child.returncode}) within {cpu_s} s of "
            f"a CPU and {_memory_bytes(len(data)) / 1e9:.1f} GB of memory"
        )


def examine(data: bytes) -> None:
    """Read a graph, run it on noise, and compare its answers.

    Args:
        data: of an ONNX file; metadata are passed over.

    Raises:
        ArtifactError: it is no backbone, does not run, answers for a picture by the others beside it, or the same to
            all.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ArtifactError("not a whole ONNX file") from error
    if any(prop.key == CARD_KEY for prop in model.metadata_props):
        raise ArtifactError("it is a whole model: `regraft backbones add store:NAME` takes the backbone out of one")
    del model.metadata_props[:]
    check_backbone(model)
    side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    width = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    del model
    session = open_session(data, provider="cpu", threads=1).session
    crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)

    def embed(some: object, pictures: int) -> FloatArray:
        (embedding,) = session.run([EMBEDDING], {IMAGE: some})
        if embedding.shape != (pictures, width) or not np.isfinite(embedding).all():
            raise ArtifactError(f"it makes no finite embedding [{pictures}, {width}] of {pictures} pictures")
        return np.asarray(embedding, np.float32)

    together, alone = embed(crops, 2), embed(crops[:1], 1)
    largest = max(float(np.abs(together).max()), 1e-12)
    if float(np.abs(together[0] - alone[0]).max()) > _TOLERANCE * largest:
        raise ArtifactError("the embedding of a picture depends on the pictures beside it")
    if float(np.abs(together[0] - together[1]).max()) <= 1e-9 * largest:
        raise ArtifactError("two pictures have the same embedding: it does not look at them")


def _memory_bytes(size_bytes: int) -> int:
    return _MEMORY_BYTES + _MEMORY_TIMES * size_bytes


def _limit(size_bytes: int, cpu_s: int) -> None:
    """Limit this process's memory, time and files."""
    memory_bytes = _memory_bytes(size_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main() -> int:
    """Read a graph, try it, and return the exit code."""
    data = sys.stdin.buffer.read()
    _limit(len(data), int(sys.argv[1]))
    try:
        examine(data)
    except RegraftError as error:
        print(first_line(error))  # noqa: T201 - the parent reads it
        return _REFUSED
    except MemoryError:
        return 1
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exception classes share no base class but this
        print(f"it does not run: {first_line(error)}")  # noqa: T201 - likewise
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
