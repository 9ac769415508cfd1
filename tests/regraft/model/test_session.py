import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from regraft.errors import ArtifactError, ProviderError
from regraft.model.artifact import EMBEDDING, IMAGE, graft
from regraft.model.session import (
    CudaOptions,
    ProviderChoice,
    arithmetic_here,
    nodes_elsewhere,
    only_device,
    open_session,
)
from tests import REPOSITORY
from tests.cuda_pretended import in_pretended_cuda
from tests.tiny import EMBEDDING_SIZE, tiny_backbone, tiny_card, tiny_head

BACKBONE = tiny_backbone().SerializeToString()
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)


def in_a_child(program: str, packages: Path | None = None) -> str:
    """Run ``program`` in a fresh Python, the fake packages before the real ones, and return what it prints."""
    environment = os.environ | ({"PYTHONPATH": str(packages)} if packages else {})
    child = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def fake_onnxruntime(folder: Path, source: str) -> Path:
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime/__init__.py").write_text(source)
    return folder


def test_a_session_on_the_cpu_runs_and_says_that_it_is_on_the_cpu() -> None:
    opened = open_session(BACKBONE, provider="cpu", threads=1)

    (embedding,) = opened.session.run([EMBEDDING], {IMAGE: IMAGES})

    assert opened.provider == "cpu"
    assert not opened.fallback_reason
    assert opened.session.get_providers() == ["CPUExecutionProvider"]
    assert embedding.shape == (3, EMBEDDING_SIZE)


def test_a_file_and_its_bytes_give_the_same_answers(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BACKBONE)

    from_file = open_session(path, provider="cpu", threads=1).session.run([EMBEDDING], {IMAGE: IMAGES})
    from_bytes = open_session(BACKBONE, provider="cpu", threads=2).session.run([EMBEDDING], {IMAGE: IMAGES})

    np.testing.assert_array_equal(from_file, from_bytes)


def test_provider_auto_runs_everywhere_and_gives_a_reason_exactly_where_it_falls_back() -> None:
    opened = open_session(BACKBONE, provider="auto", threads=1)

    (embedding,) = opened.session.run([EMBEDDING], {IMAGE: IMAGES})

    (expected,) = open_session(BACKBONE, provider="cpu", threads=1).session.run([EMBEDDING], {IMAGE: IMAGES})
    np.testing.assert_allclose(embedding, expected, atol=1e-5)
    assert opened.provider == ("cuda" if "CUDAExecutionProvider" in opened.session.get_providers() else "cpu")
    assert bool(opened.fallback_reason) == (opened.provider == "cpu")


def why_there_is_no_cuda() -> str:
    opened = open_session(BACKBONE, provider="auto", threads=1)
    if opened.provider == "cuda":
        pytest.skip("CUDA works on this machine, so there is nothing to fall back from")
    return opened.fallback_reason


def test_provider_auto_says_why_it_fell_back_to_the_cpu() -> None:
    reason = why_there_is_no_cuda()

    assert "CUDA" in reason or "library" in reason or "libcu" in reason


def test_provider_cuda_refuses_with_the_reason_rather_than_falling_back() -> None:
    reason = why_there_is_no_cuda()

    with pytest.raises(ProviderError, match="provider cuda was asked for, but ") as caught:
        open_session(BACKBONE, provider="cuda", threads=1)

    assert reason in str(caught.value)


def test_an_onnx_runtime_without_cuda_is_told_apart_from_a_broken_cuda(tmp_path: Path) -> None:
    packages = fake_onnxruntime(
        tmp_path, "def get_available_providers():\n    return ['AzureExecutionProvider', 'CPUExecutionProvider']\n"
    )

    printed = in_a_child(
        "from regraft.errors import ProviderError\n"
        "from regraft.model.session import open_session\n"
        "try:\n"
        "    open_session(b'', provider='cuda', threads=1)\n"
        "except ProviderError as error:\n"
        "    print(error)\n",
        packages,
    )

    assert "has no CUDA provider" in printed
    assert "regraft[gpu]" in printed


OUT_OF_MEMORY = """
import resource
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from regraft.model.session import is_out_of_memory
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "M"]) for name in ("x", "y")]
counts = helper.make_tensor_value_info("counts", TensorProto.INT64, [2])
graph = helper.make_graph([helper.make_node("Tile", ["x", "counts"], ["y"])], "", [values[0], counts], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 200 * 2**20,) * 2)
x = np.zeros((1000, 1000), np.float32)
for fed in ({"x": x, "counts": np.array([100, 1])}, {"x": x}):
    try:
        session.run(None, fed)
    except Exception as error:
        print(is_out_of_memory(error))
"""


def test_a_run_without_memory_is_told_from_another_failure() -> None:
    assert in_a_child(OUT_OF_MEMORY).split() == ["True", "False"]


OPEN = """
import sys
from pathlib import Path
from regraft.model.session import CudaOptions, arithmetic_here, open_session
model = Path(sys.argv[1]).read_bytes()
print(open_session(model, provider="auto", threads=1).arithmetic, arithmetic_here("auto"), arithmetic_here("cpu"))
told = CudaOptions(device=1, memory_bytes=2**30, arena="as-requested", tf32=True)
opened = open_session(model, provider="auto", threads=1, cuda=told)
print(opened.arithmetic)
print(opened.on_cpu)
"""


def test_cuda_gets_its_options_and_computes_in_fp32_unless_tf32_is_asked_for(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(BACKBONE)

    child = in_pretended_cuda(["-c", OPEN, str(model)], tmp_path)

    default, told = child.cuda_options
    assert default == {
        "device_id": "0",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    assert told == {
        "device_id": "1",
        "gpu_mem_limit": str(2**30),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "1",
    }
    nodes = {"Cast": 1, "Transpose": 1, "AveragePool": 1, "Flatten": 1, "Mul": 1}
    assert child.printed == ["cuda fp32 cuda fp32 cpu", "cuda tf32", str(nodes)], "it is a CPU that pretends"


def test_a_session_that_is_called_cuda_runs_no_node_on_the_cpu() -> None:
    """Checks a real GPU, where there is one.

    Elsewhere the session is called cpu; the next test has the rule itself.
    """
    head = tiny_head(("red", "green"))
    model = graft(tiny_backbone(), head, tiny_card(tiny_backbone(), head, ("red", "green")))

    assert open_session(model.SerializeToString(), provider="auto", threads=1).on_cpu == {}


class Part:
    """Nodes that one execution provider took, as ONNX Runtime tells it."""

    def __init__(self, provider: str, *operators: str) -> None:
        self.ep_name = provider
        self._operators = operators

    def get_nodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(op_type=operator) for operator in self._operators]


class SplitSession:
    """A session whose nodes two execution providers share."""

    def get_provider_graph_assignment_info(self) -> list[Part]:
        cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
        return [
            Part(cuda, "Conv", "Relu"),
            Part(cpu, "LpNormalization"),
            Part(cpu, "Shape", "Shape"),
            Part(cuda, "Gemm"),
        ]


def test_the_nodes_that_another_provider_runs_are_counted_by_operator() -> None:
    session = open_session(BACKBONE, provider="cpu", threads=1).session

    assert nodes_elsewhere(session, "CPUExecutionProvider") == {}
    assert sum(nodes_elsewhere(session, "CUDAExecutionProvider").values()) == len(tiny_backbone().graph.node)
    assert nodes_elsewhere(SplitSession(), "CUDAExecutionProvider") == {"Shape": 2, "LpNormalization": 1}
    assert nodes_elsewhere(SplitSession(), "CPUExecutionProvider") == {"Conv": 1, "Relu": 1, "Gemm": 1}


@pytest.mark.parametrize(
    ("visible", "number", "of_child"),
    [(None, 0, "0"), (None, 2, "2"), ("3,5", 1, "5"), ("GPU-a, GPU-b", 1, "GPU-b"), ("", 0, ""), ("3", 1, "3")],
)
def test_a_child_gets_the_gpu_of_its_parent_alone(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, number: int, of_child: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert only_device(number) == of_child


def test_a_cpu_knows_one_arithmetic_only() -> None:
    opened = open_session(BACKBONE, provider="cpu", threads=1, cuda=CudaOptions(tf32=True))

    assert opened.arithmetic == arithmetic_here("cpu") == "cpu"


def test_without_onnx_runtime_the_error_names_the_extras_to_install(tmp_path: Path) -> None:
    packages = fake_onnxruntime(tmp_path, "raise ImportError('not installed')\n")

    printed = in_a_child(
        "from regraft.errors import MissingPackageError\n"
        "from regraft.model.session import open_session\n"
        "try:\n"
        "    open_session(b'', provider='cpu', threads=1)\n"
        "except MissingPackageError as error:\n"
        "    print(error)\n",
        packages,
    )

    assert "regraft[cpu]" in printed
    assert "regraft[gpu]" in printed


def unknown_operator() -> bytes:
    model = tiny_backbone()
    model.graph.node[0].op_type = "Magic"
    return model.SerializeToString()


def dangling_input() -> bytes:
    model = tiny_backbone()
    model.graph.node[1].input[0] = "nowhere"
    return model.SerializeToString()


@pytest.mark.parametrize("provider", ["cpu", "auto"])
@pytest.mark.parametrize(
    "model",
    [b"rubbish", b"", BACKBONE[: len(BACKBONE) // 2], unknown_operator(), dangling_input()],
    ids=["rubbish", "nothing", "half a model", "an unknown operator", "an input from nowhere"],
)
def test_a_model_that_onnx_runtime_refuses_is_an_artifact_error(model: bytes, provider: ProviderChoice) -> None:
    with pytest.raises(ArtifactError, match=r"ONNX Runtime refuses the model: .") as caught:
        open_session(model, provider=provider, threads=1)

    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere\.onnx"):
        open_session(tmp_path / "nowhere.onnx", provider="cpu", threads=1)


def test_opening_a_model_whose_initializers_are_inputs_prints_no_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_backbone()
    model.graph.input.append(onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, []))

    open_session(model.SerializeToString(), provider="cpu", threads=1)

    assert capfd.readouterr().err == ""
