"""Server reflection: v1 for new tools, v1alpha for older ones."""

from collections.abc import Iterable
from typing import Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

_OLD: Final = reflection.SERVICE_NAME
_NEW: Final = _OLD.replace("v1alpha", "v1")
_METHOD: Final = "ServerReflectionInfo"


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Let ``server`` describe ``services``, and reflection itself."""
    _describe_v1()
    names = (*services, _NEW, _OLD)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_NEW, {_METHOD: handler}),))


def _describe_v1() -> None:
    """Register v1's description, which gRPC's package lacks."""
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    renamed = text_format.MessageToString(file).replace("v1alpha", "v1")
    described = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
    try:
        pool.FindFileByName(described.name)
    except KeyError:
        pool.Add(described)
