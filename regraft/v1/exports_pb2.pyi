from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX: _ClassVar[ExportFormat]
    EXPORT_FORMAT_FP16: _ClassVar[ExportFormat]
    EXPORT_FORMAT_INT8: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ORT: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MOBILE: _ClassVar[ExportFormat]
    EXPORT_FORMAT_TRITON: _ClassVar[ExportFormat]
    EXPORT_FORMAT_OPENVINO: _ClassVar[ExportFormat]
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_ONNX: ExportFormat
EXPORT_FORMAT_FP16: ExportFormat
EXPORT_FORMAT_INT8: ExportFormat
EXPORT_FORMAT_ORT: ExportFormat
EXPORT_FORMAT_MOBILE: ExportFormat
EXPORT_FORMAT_TRITON: ExportFormat
EXPORT_FORMAT_OPENVINO: ExportFormat

class ExportRequest(_message.Message):
    __slots__ = ("name", "version", "format", "cpu", "max_drop")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MAX_DROP_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    format: ExportFormat
    cpu: str
    max_drop: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., cpu: _Optional[str] = ..., max_drop: _Optional[float] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("progress", "result", "data")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    progress: ExportProgress
    result: ExportResult
    data: bytes
    def __init__(self, progress: _Optional[_Union[ExportProgress, _Mapping]] = ..., result: _Optional[_Union[ExportResult, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ExportProgress(_message.Message):
    __slots__ = ("stage", "done", "total")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done: int
    total: int
    def __init__(self, stage: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ExportResult(_message.Message):
    __slots__ = ("version", "size_bytes", "export_json")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    version: int
    size_bytes: int
    export_json: str
    def __init__(self, version: _Optional[int] = ..., size_bytes: _Optional[int] = ..., export_json: _Optional[str] = ...) -> None: ...
