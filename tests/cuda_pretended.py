"""An ONNX Runtime that believes in CUDA: it says what a session was to run on, and runs it on the CPU."""

import _ctypes
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

_TOLD = "providers: "
_PACKAGE = """
import json, sys
from pathlib import Path
sys.path.remove(str(Path(__file__).parents[1]))
del sys.modules["onnxruntime"]
import onnxruntime

class Session(onnxruntime.InferenceSession):
    def __init__(self, source, options, *, providers, **rest):
        print("providers:", json.dumps(providers), flush=True)
        wanted.extend(int(entry[1]["device_id"]) for entry in providers if not isinstance(entry, str))
        self._pretended = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        super().__init__(source, options, providers=["CPUExecutionProvider"], **rest)

    def get_providers(self):
        return self._pretended

    def io_binding(self):
        return Binding(self)

    def run(self, *arguments):
        print("fed from the host", flush=True)
        return super().run(*arguments)

class Binding(onnxruntime.IOBinding):
    def bind_output(self, name, device, number=0):
        super().bind_output(name)

def on_the_host(array, device="cpu", number=0):
    assert (device, number) == ("cuda", wanted[-1]), "all heads are on the session's device"
    return real(array)

real = onnxruntime.OrtValue.ortvalue_from_numpy
onnxruntime.OrtValue.ortvalue_from_numpy = staticmethod(on_the_host)
wanted = []
onnxruntime.InferenceSession = Session
onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
onnxruntime.preload_dlls = lambda: None
onnxruntime.__file__ = __file__
"""


@dataclass(frozen=True)
class Child:
    """What a process printed, and the options of CUDA of every session that it opened, in turn."""

    cuda_options: list[dict[str, str]]
    printed: list[str]


def in_pretended_cuda(arguments: list[str], folder: Path) -> Child:
    """Run Python where CUDA seems to work."""
    capi = folder / "onnxruntime/capi"
    capi.mkdir(parents=True)
    (folder / "onnxruntime/__init__.py").write_text(_PACKAGE)
    for library in (capi / "libonnxruntime_providers_cuda.so", folder / "libcuda.so.1"):
        library.symlink_to(_ctypes.__file__)  # any library that can be loaded
    child = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PYTHONPATH": str(folder),
            "LD_LIBRARY_PATH": str(folder),
            "REGRAFT_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    lines = child.stdout.splitlines()
    told = [json.loads(line.removeprefix(_TOLD)) for line in lines if line.startswith(_TOLD)]
    assert told, child.stderr
    options = [entry[1] for providers in told for entry in providers if entry[0] == "CUDAExecutionProvider"]
    return Child(options, [line for line in lines if not line.startswith(_TOLD)])
