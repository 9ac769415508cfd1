"""Every RPC of a server, found by reflection, and called with one message."""

from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.waiting import PATIENCE_S

OPEN_TO_ALL: Final = ("grpc.health.", "grpc.reflection.")


def rpcs_of(channel: grpc.Channel) -> dict[str, descriptor_pb2.MethodDescriptorProto]:
    """Return what a server answers to, by full name, but for health and reflection."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**question: str) -> Any:  # noqa: ANN401 - a message of untyped stubs
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        return next(iter(answers))

    services = [service.name for service in ask(list_services="").list_services_response.service]
    found: dict[str, descriptor_pb2.MethodDescriptorProto] = {}
    for name in services:
        if name.startswith(OPEN_TO_ALL):
            continue
        for data in ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            for service in file.service:
                if f"{file.package}.{service.name}" == name:
                    found |= {f"/{name}/{method.name}": method for method in service.method}
    return found


def outcome_of(channel: grpc.Channel, rpc: str, token: str = "", request: bytes = b"") -> grpc.StatusCode:
    """Call an RPC of whichever kind with one message, and return the status that it ends with."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    call: Any = channel.stream_stream(rpc)
    try:
        list(call(iter([request]), metadata=metadata, timeout=PATIENCE_S))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
