"""The committed stubs are what the generator makes of ``proto/`` today."""

from importlib.metadata import version
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from serving.access import LEAST_ROLE

ROOT = Path(__file__).parent.parent


def test_committed_stubs_equal_freshly_generated_ones(tmp_path: Path) -> None:
    protos = sorted((ROOT / "proto").rglob("*.proto"))
    arguments = [f"-I{ROOT / 'proto'}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

    assert protoc.main(["protoc", *arguments, *outputs, *map(str, protos)]) == 0

    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py*")}
    committed = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "regraft").glob("*/*_pb2*.py*")}
    assert committed == fresh, "run `make proto`"


def test_the_generator_is_of_protobuf_6_so_that_stubs_run_beside_6_and_7() -> None:
    gencode = (ROOT / "regraft" / "v1" / "classifier_pb2.py").read_text()

    assert "# Protobuf Python Version: 6." in gencode
    assert version("grpcio-tools").startswith("1.80.")


def test_every_rpc_has_a_role_that_may_call_it(tmp_path: Path) -> None:
    protos = sorted(map(str, (ROOT / "proto").rglob("*.proto")))
    descriptors = tmp_path / "descriptors"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={descriptors}", *protos]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file

    assert LEAST_ROLE.keys() == {
        f"/{file.package}.{service.name}/{method.name}"
        for file in files
        for service in file.service
        for method in service.method
    }, "serving/access.py says which role may call what"
