"""The committed stubs are what the generator makes of ``proto/`` today."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from google.protobuf import descriptor_pb2

from serving.rpc.security.roles import LEAST_ROLE
from tests import REPOSITORY


def generate(*outputs: str) -> None:
    """Run the generator in a process of its own: once it is loaded, onnxruntime_extensions aborts on import."""
    protos = sorted(map(str, (REPOSITORY / "proto").rglob("*.proto")))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY / 'proto'}", *outputs, *protos], check=True
    )


def test_committed_stubs_equal_freshly_generated_ones(tmp_path: Path) -> None:
    generate(*(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")))

    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py*")}
    committed = {
        path.relative_to(REPOSITORY): path.read_text() for path in (REPOSITORY / "regraft").glob("*/*_pb2*.py*")
    }
    assert committed == fresh, "run `make proto`"


def test_the_generator_is_of_protobuf_6_so_that_stubs_run_beside_6_and_7() -> None:
    gencode = (REPOSITORY / "regraft" / "v1" / "classifier_pb2.py").read_text()

    assert "# Protobuf Python Version: 6." in gencode
    assert version("grpcio-tools").startswith("1.80.")


def test_every_rpc_has_a_role_that_may_call_it(tmp_path: Path) -> None:
    descriptors = tmp_path / "descriptors"
    generate(f"--descriptor_set_out={descriptors}")
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file

    assert LEAST_ROLE.keys() == {
        f"/{file.package}.{service.name}/{method.name}"
        for file in files
        for service in file.service
        for method in service.method
    }, "serving/rpc/security/roles.py says which role may call what"
