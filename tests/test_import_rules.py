"""Who may import whom: the contracts of pyproject.toml can be broken, and what they cannot say."""

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import grimp
import pytest

from tests import REPOSITORY

PACKAGES: Final = ("regraft", "serving", "training")
CONTRACTS: Final[list[dict[str, Any]]] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]
BREACHES: Final = {
    "down": ("serving.supervisor", "training.settings"),
    "ground": ("regraft.model.card", "serving.settings"),
    "roof": ("training.settings", "regraft.cli.terminal"),
    "circles": ("regraft.model.card", "regraft.model.artifact"),
    "server": ("serving.inference.engine", "serving.rpc.streams"),
    "terminal": ("serving.settings", "typer"),
    "torch": ("training.head.fit", "torch"),
    "torchvision": ("training.head.fit", "torchvision"),
    "timm": ("training.head.fit", "timm"),
    "safetensors": ("training.head.fit", "safetensors"),
    "grpc": ("regraft.stores.models", "grpc"),
    "messages": ("serving.rpc.parsing", "grpc"),
    "onnxruntime": ("training.export.budget", "onnxruntime"),
    "pictures": ("training.data.dataset", "PIL"),
    "simplejpeg": ("regraft.image.encode", "simplejpeg"),
    "spec": ("regraft.image.spec", "PIL"),
    "sql": ("training.retrain.data", "sqlalchemy"),
    "alembic": ("regraft.stores.database.engine", "alembic"),
    "psycopg": ("regraft.stores.database.engine", "psycopg"),
    "fsspec": ("regraft.stores.models", "fsspec"),
    "pyarrow": ("training.data.dataset", "pyarrow"),
    "prometheus": ("serving.server", "prometheus_client"),
    "uvicorn": ("serving.server", "uvicorn"),
    "opentelemetry": ("serving.server", "opentelemetry"),
    "pynvml": ("serving.inference.gpu", "pynvml"),
    "jinja2": ("training.compare.chart", "jinja2"),
    "matplotlib": ("training.evaluation.report.charts", "matplotlib"),
    "trackers": ("training.train", "mlflow"),
    "usearch": ("training.evaluation.duplicates", "usearch"),
    "openvino": ("training.export.formats.triton", "openvino"),
    "mobile": ("training.export.formats.triton", "onnxruntime_extensions"),
}
"""For each contract an import that it must not let pass."""

LOADED_WITHOUT_TORCH: Final = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""


def lint(folder: Path, tool: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ``make lint`` on the packages in a folder."""
    recipe = (REPOSITORY / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    [arguments] = re.findall(rf"^\t\$\(DEV\)/{tool}(.*)$", recipe, flags=re.MULTILINE)
    program, *subcommand = tool.split()
    return subprocess.run(
        [Path(sys.executable).with_name(program), *subcommand, *arguments.replace("$(SOURCES)", ".").split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_lint_fails_on_a_breach_of_each_contract(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    assert lint(tmp_path, "lint-imports").returncode == 0

    for importer, imported in BREACHES.values():
        with (tmp_path / importer.replace(".", "/")).with_suffix(".py").open("a") as file:
            file.write(f"\n\ndef breach() -> None:\n    import {imported}\n")
    linted = lint(tmp_path, "lint-imports")

    assert linted.returncode == 1
    for contract in CONTRACTS:
        importer, imported = BREACHES[contract["id"]]
        assert f"{contract['name']} BROKEN" in linted.stdout
        assert re.search(rf"{importer} -> {imported}|\.{importer.split('.')[-1]} -> ", linted.stdout), contract


@pytest.mark.parametrize("name", ["wait_for", "to_thread"])
def test_make_lint_fails_where_a_server_waits_by_what_harms_it(tmp_path: Path, name: str) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    (tmp_path / "serving.py").write_text(f'"""A module."""\n\nfrom asyncio import {name}\n\n__all__ = ["{name}"]\n')

    assert f"TID251 `asyncio.{name}` is banned" in lint(tmp_path, "ruff check").stdout


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        *PACKAGES, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


@pytest.mark.parametrize("contract", [each for each in CONTRACTS if each["type"] == "protected"], ids=lambda c: c["id"])
def test_a_contract_lets_nobody_pass_who_does_not_need_it(graph: grimp.ImportGraph, contract: dict[str, Any]) -> None:
    protected = contract["protected_modules"]
    importers = {
        name for module in protected for name in graph.find_modules_that_directly_import(module, as_package=True)
    }

    for allowed in contract["allowed_importers"]:
        assert (importers | set(protected)) & {allowed, *graph.find_descendants(allowed)}, allowed


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    """`circles` says it of the modules of a folder, this of all."""
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    graphlib.TopologicalSorter(imported).prepare()


def test_serving_judging_and_retraining_a_head_are_loaded_without_torch(graph: grimp.ImportGraph) -> None:
    """Function-level imports, which no contract tells from others, may bring it when they are needed."""
    halls = ("data", "evaluation", "export", "gate", "head", "quantisation", "retrain", "versions")
    packages = ("regraft", "serving", *(f"training.{hall}" for hall in halls))
    modules = {module for package in packages for module in graph.find_descendants(package)}
    loaded = sorted(module for module in modules if not module.endswith("__main__") and "migrations" not in module)
    subprocess.run([sys.executable, "-c", LOADED_WITHOUT_TORCH, *loaded], check=True)


def test_a_module_that_imports_torch_says_so(graph: grimp.ImportGraph) -> None:
    for module in graph.find_modules_that_directly_import("torch"):
        assert "Imports torch" in (ast.get_docstring(_tree(REPOSITORY / f"{module.replace('.', '/')}.py")) or ""), (
            module
        )


def test_what_waits_has_threads_of_its_own() -> None:
    """Nothing runs in the event loop's default executor: what hangs there would hold up all else."""
    assert not [path for path in sources() if "run_in_executor(None" in path.read_text()]


def test_sessions_are_opened_only_where_the_architecture_says() -> None:
    openers = {
        path.relative_to(REPOSITORY).as_posix()
        for path in sources()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open_session"
    }

    assert openers == {
        "serving/inference/engine.py",
        "serving/inference/gpu.py",  # multiplies embeddings with the heads of a batch
        "regraft/model/backbone_trial.py",  # runs a foreign graph, in a process of its own
        "training/head/features.py",
        # These compare a finished file with what it should compute, time it, or look at what its layers are given.
        "training/backbones/onnx_export.py",
        "training/evaluation/latency.py",
        "training/export/formats/runners.py",
        "training/importing/onnx_file.py",
        "training/quantisation/activations.py",
        "training/quantisation/sensitivity.py",
        "training/versions/publish.py",
    }


def sources() -> list[Path]:
    return [
        path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py") if "migrations" not in path.parts
    ]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())
