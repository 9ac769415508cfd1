"""Guard of the RPCs: authentication, roles, audit log."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import grpc

from regraft.errors import ForbiddenError, UnauthenticatedError
from serving.rpc.context import Context
from serving.rpc.security.named_models import CheckedMessages
from serving.rpc.security.roles import LEAST_ROLE, Caller, Callers, Role
from serving.rpc.status import status_of
from serving.telemetry.call import current

audit = logging.getLogger("regraft.audit")
log = logging.getLogger("regraft.access")

_SCHEME: Final = "bearer "
_MAX_VALUE: Final = 200

_Answer: TypeAlias = Callable[[Any, Any], Any]


class Guard:
    """The guard of a port: admits callers, and audits control RPCs."""

    def __init__(self, callers: Callers | None) -> None:
        """Authenticate ``callers``; None admits everybody."""
        self._callers = callers

    def __call__(self, method: str, answer: _Answer, *, streams: bool) -> _Answer:
        """Return ``answer`` with the guard before it; ``streams``: it returns an iterator.

        The handler raises UnauthenticatedError or ForbiddenError before the first answer.
        """
        least = LEAST_ROLE.get(method, Role.OPERATE)
        guarded = self._admitting(least, answer) if self._callers else answer
        if least is Role.CLASSIFY:
            return guarded
        return _audited_stream(method, guarded) if streams else _audited(method, guarded)

    def _admitting(self, least: Role, answer: _Answer) -> _Answer:
        def admit(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - any answer
            caller = self._identify(context)
            if call := current():
                call.caller, call.models = caller.name, caller.models
            if caller.role < least:
                raise ForbiddenError(
                    f"{caller.name} has the role {caller.role.name.lower()}; this needs {least.name.lower()}"
                )
            return answer(requests if caller.models is None else CheckedMessages(requests), context)

        return admit

    def _identify(self, context: Context) -> Caller:
        assert self._callers
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                scheme, token = value[: len(_SCHEME)], value[len(_SCHEME) :]
                caller = self._callers.with_token(str(token)) if str(scheme).lower() == _SCHEME else None
                if caller is None:
                    raise UnauthenticatedError("the token is not known here: is it whole, and was it not withdrawn?")
                return caller
        names = (name.decode(errors="replace") for name in context.peer_identities() or ())
        caller = self._callers.with_certificate(names)
        if caller is None:
            raise UnauthenticatedError("who are you? Send a token (`--token`, REGRAFT_TOKEN), or a known certificate")
        return caller


def _audited(method: str, answer: _Answer) -> _Answer:
    async def call(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - any message
        with _AuditLine(method, context):
            return await answer(requests, context)

    return call


def _audited_stream(method: str, answer: _Answer) -> _Answer:
    async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        with _AuditLine(method, context):
            async with aclosing(answer(requests, context)) as responses:  # its last effects are for the line
                async for response in responses:
                    yield response

    return call


class _AuditLine:
    """The audit line of a call, written when it ends."""

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._from = unquote(context.peer())  # when a call was cancelled there is no peer to ask for: gRPC crashes

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            outcome = grpc.StatusCode.OK
        elif isinstance(error, Exception):
            outcome = status_of(error)[0]
        else:
            outcome = grpc.StatusCode.CANCELLED
        call = current()
        line = {
            "who": call.caller if call else "",
            "rpc": self._method,
            "request": _fields(call.request if call else None),
            "from": self._from,
            "outcome": outcome.name,
            "effect": call.effect if call else {},
        }
        try:
            audit.info("%s", json.dumps(line))  # ASCII alone: nothing in it can begin a line of its own
        except Exception:  # what took effect must not be answered as an error
            log.exception("an audit line could not be written: %s", line)


def _fields(request: Any) -> dict[str, str]:  # noqa: ANN401 - any message, or none that was read
    if not hasattr(request, "ListFields"):
        return {}
    return {field.name: _as_text(value)[:_MAX_VALUE] for field, value in request.ListFields()}


def _as_text(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
