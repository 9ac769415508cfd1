"""Who may import whom (ARCHITECTURE, "The house"), read from the source itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import REPOSITORY

PACKAGES = ("regraft", "serving", "training")

ONE_DOOR = {
    "alembic": {"regraft/stores/database/schema.py"},
    "onnxruntime": {
        "regraft/model/session.py",
        "training/export/formats/fp16.py",
        "training/export/formats/ort_format.py",
        "training/quantisation/quantise.py",
    },
    "onnxruntime_extensions": {"training/export/formats/mobile.py"},
    "openvino": {"training/export/formats/openvino_ir.py"},
    "PIL": {"regraft/image/decode.py", "regraft/image/encode.py", "regraft/image/resize.py"},
    "simplejpeg": {"regraft/image/decode.py"},
    "cykooz_resizer": {"regraft/image/resize.py"},
    "prometheus_client": {"serving/telemetry/metrics.py"},
    "opentelemetry": {"serving/telemetry/tracing.py"},
    "pynvml": {"serving/telemetry/gpu_memory.py"},
    "jinja2": {"training/export/readme.py", "training/evaluation/report/page.py"},
    "matplotlib": {"training/compare/chart.py"},
    "torchvision": {
        "training/strategies/finetuning/batches.py",
        "training/backbones/listing.py",
        "training/backbones/build.py",
        "training/backbones/input_size.py",
        "training/strategies/finetuning/learner.py",
        "training/backbones/weights.py",
    },
    "safetensors": {"training/backbones/trained_state.py", "training/backbones/weights.py"},
    "timm": {"training/backbones/listing.py", "training/backbones/build.py"},
    "mlflow": {"training/strategies/tracking.py"},
    "usearch": {"training/evaluation/neighbours.py"},
    "tensorboard": {"training/strategies/tracking.py"},
}
"""A library, and the only modules that may import it."""

FRONT_DOORS = {
    "serving": {"regraft/cli/serving/serve.py"},
    "training": {
        "regraft/cli/training/compare.py",
        "regraft/cli/training/evaluate.py",
        "regraft/cli/training/export.py",
        "regraft/cli/training/import_.py",
        "regraft/cli/training/versions.py",
        "regraft/cli/training/look.py",
        "regraft/cli/training/quantise.py",
        "regraft/cli/training/refresh.py",
        "regraft/cli/training/train.py",
        "regraft/cli/training/upgrade.py",
    },
}


def sources() -> list[Path]:
    return [
        path
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if not {"v1", "oip", "migrations"} & {*path.parts}
    ]


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in the file, but for type checkers only."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def importers_of(library: str) -> set[str]:
    return {name(path) for path in sources() if any(module.split(".")[0] == library for module in imports(path))}


@pytest.mark.parametrize("library", ONE_DOOR)
def test_a_library_comes_in_by_one_door(library: str) -> None:
    assert importers_of(library) == ONE_DOOR[library]


def test_training_and_serving_never_import_each_other() -> None:
    assert not {path for path in importers_of("training") if path.startswith("serving/")}
    assert not {path for path in importers_of("serving") if path.startswith("training/")}


@pytest.mark.parametrize("package", FRONT_DOORS)
def test_regraft_imports_neither_but_for_the_front_door(package: str) -> None:
    assert {path for path in importers_of(package) if path.startswith("regraft/")} == FRONT_DOORS[package]


def test_nothing_waits_by_what_loses_a_cancellation() -> None:
    """`asyncio.wait_for` is unused, since it may lose a cancellation.

    Before Python 3.12 it passes over one that comes as its wait ends; `asyncio.timeout` does not.
    """
    assert not [name(path) for path in sources() if "asyncio.wait_for(" in path.read_text()]


def test_torch_is_only_in_training_and_whoever_imports_it_says_so() -> None:
    importers = importers_of("torch")
    saying_so = {name(path) for path in sources() if "Imports torch" in (ast.get_docstring(_tree(path)) or "")}

    assert {path for path in importers if not path.startswith("training/")} == set()
    assert importers <= saying_so


def test_grpc_stays_at_the_edge() -> None:
    edge = {
        "serving/rpc/interceptor.py",
        "serving/telemetry/tracing.py",
        "serving/server.py",
        "regraft/client/client.py",
    }
    edge |= {name(path) for path in sources() if path.name.startswith("grpc_")}

    assert importers_of("grpc") <= edge


def test_what_waits_has_threads_of_its_own() -> None:
    """Nothing of the server runs in the event loop's default executor.

    What hangs there would hold up all else.
    """
    in_default = {"to_thread(", "run_in_executor(None"}
    shared = {
        f"{name(path)}: {ast.unparse(node)}"
        for path in sources()
        if path.parent.name == "serving"
        for node in _walk(path)
        if isinstance(node, ast.Call) and any(way in ast.unparse(node) for way in in_default)
    }

    assert shared == set()


def test_sessions_are_opened_only_where_the_architecture_says() -> None:
    openers = {
        name(path)
        for path in sources()
        if any(isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open_session" for node in _walk(path))
    }

    # `export` and `version` open one to compare a finished file with what it should compute, and drop it again;
    # `import_onnx` asks a file that somebody brought what it answers by itself;
    # `serving/device` multiplies embeddings with the heads of a batch on a GPU;
    # `formats/answers` asks what `regraft export` wrote; `speed` takes the time of finished files; `activations` and
    # `sensitivity` look at what layers are given, and what 8 bits do to them.
    modules = ("export", "import_onnx", "version", "formats/answers", "speed", "activations", "sensitivity")
    checks = {f"training/{module}.py" for module in modules}
    assert openers == {"serving/inference/engine.py", "serving/inference/gpu.py", "training/head/features.py"} | checks


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _walk(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(_tree(path))
