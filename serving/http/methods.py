"""The methods of the servicers, as their registration with gRPC tells them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message


class Registry(Protocol):
    """A registry of servicers: gRPC's server, or what stands before it."""

    def add_generic_rpc_handlers(self, handlers: Any, /) -> None: ...  # noqa: ANN401, D102 - gRPC's own

    def add_registered_method_handlers(self, service: str, handlers: Any, /) -> None: ...  # noqa: ANN401, D102 - likewise


@dataclass(frozen=True)
class Method:
    """A method behind the interceptor.

    It takes a stream of requests and a context.

    Attributes:
        path: ``/package.Service/Method``.
        descriptor: of the proto.
        answer: returns the response, or an iterator of them where the method streams.
        request: the class of its requests.
        parse: makes a request of bytes, or an error where they are none.
        serialize: makes bytes of a response.
    """

    path: str
    descriptor: MethodDescriptor
    answer: Callable[[Any, Any], Any]
    request: type[Message]
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]

    @property
    def streams_out(self) -> bool:
        """True where it answers by a stream."""
        return bool(self.descriptor.server_streaming)

    @property
    def streams_in(self) -> bool:
        """True where it is asked by a stream."""
        return bool(self.descriptor.client_streaming)


class Methods(dict[str, Method]):
    """Methods by path; servicers are registered with what `beside` returns."""

    def __init__(self, wrap: Callable[[str, Any], Any]) -> None:
        """Wrap each handler, as `serving.rpc.interceptor.RpcInterceptor.wrap` does."""
        super().__init__()
        self._wrap = wrap

    def beside(self, server: Registry) -> Registry:
        """Return a registry of both ``server`` and these methods."""
        return _Both(server, self)

    def add(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Add the handlers of a service."""
        pool = descriptor_pool.Default()
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            descriptor = pool.FindMethodByName(f"{service}.{name}")
            wrapped = self._wrap(path, handler)
            self[path] = Method(
                path,
                descriptor,
                wrapped.stream_stream or wrapped.stream_unary,
                message_factory.GetMessageClass(descriptor.input_type),
                wrapped.request_deserializer,
                wrapped.response_serializer,
            )


class _Both:
    """A registry that tells gRPC's server and the methods."""

    def __init__(self, server: Registry, methods: Methods) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers
        self._register = server.add_registered_method_handlers
        self._methods = methods

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the handlers of a service with both."""
        self._register(service, handlers)
        self._methods.add(service, handlers)
