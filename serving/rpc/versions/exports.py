"""The Exports service: a version in another format, as a zip."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from regraft.client.message_values import word_of
from regraft.errors import InvalidRequestError
from regraft.gate_limits import to_points
from regraft.label_rules import check_note
from regraft.v1 import exports_pb2 as pb
from regraft.v1 import exports_pb2_grpc as pb_grpc
from serving.exports import ExportJob, Exports
from serving.inference.registry import ModelRegistry
from serving.rpc.context import Context
from serving.rpc.parsing import check_choice
from serving.rpc.versions.reports import find_version
from serving.telemetry.call import note_effect


class ExportsService(pb_grpc.ExportsServicer):
    """The servicer; the work is done by `serving.exports`."""

    def __init__(self, models: ModelRegistry, exports: Exports) -> None:
        """Export the versions in the store of ``models``."""
        self._models = models
        self._exports = exports

    async def Export(self, request: pb.ExportRequest, _context: Context) -> AsyncIterator[pb.ExportResponse]:
        """Export a version."""
        check_choice("format", request.format, pb.ExportFormat)
        check_note("cpu", request.cpu)
        form = request.format or pb.EXPORT_FORMAT_ONNX
        if request.cpu and form != pb.EXPORT_FORMAT_INT8:
            raise InvalidRequestError(f"cpu: {request.cpu!r}; only int8 depends on the CPU")
        shares = {"max_drop": request.max_drop} if request.HasField("max_drop") else {}
        name, version, _ = await find_version(self._models, request.name, request.version)
        to = word_of(pb.ExportFormat, form).lower()
        job = ExportJob(f"{name}:{version}", to, request.cpu, to_points(shares, "").get("max_drop"))
        async with aclosing(self._exports.run(job)) as facts:
            async for fact in facts:
                if isinstance(fact, bytes):
                    yield pb.ExportResponse(data=fact)
                elif "answer" in fact:
                    note_effect(model=name, version=version, format=to)
                    told = json.dumps(fact["answer"])
                    result = pb.ExportResult(version=version, size_bytes=fact["size_bytes"], export_json=told)
                    yield pb.ExportResponse(result=result)
                else:
                    yield pb.ExportResponse(progress=pb.ExportProgress(**fact))
