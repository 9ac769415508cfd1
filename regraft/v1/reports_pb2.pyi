from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_FORMAT_UNSPECIFIED: _ClassVar[ReportFormat]
    REPORT_FORMAT_HTML: _ClassVar[ReportFormat]
    REPORT_FORMAT_JSON: _ClassVar[ReportFormat]
REPORT_FORMAT_UNSPECIFIED: ReportFormat
REPORT_FORMAT_HTML: ReportFormat
REPORT_FORMAT_JSON: ReportFormat

class GetReportRequest(_message.Message):
    __slots__ = ("name", "version", "format")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    format: ReportFormat
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., format: _Optional[_Union[ReportFormat, str]] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("data", "version", "size_bytes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    version: int
    size_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., version: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class GetConfusionRequest(_message.Message):
    __slots__ = ("name", "version", "label", "answer", "mistakes", "pictures", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    MISTAKES_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    label: str
    answer: str
    mistakes: bool
    pictures: int
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., label: _Optional[str] = ..., answer: _Optional[str] = ..., mistakes: bool = ..., pictures: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetConfusionResponse(_message.Message):
    __slots__ = ("version", "labels", "images", "right", "cells", "next_page_token")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    version: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    images: int
    right: int
    cells: _containers.RepeatedCompositeFieldContainer[ConfusionCell]
    next_page_token: str
    def __init__(self, version: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., images: _Optional[int] = ..., right: _Optional[int] = ..., cells: _Optional[_Iterable[_Union[ConfusionCell, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ConfusionCell(_message.Message):
    __slots__ = ("label", "answer", "images", "sha256")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    label: str
    answer: str
    images: int
    sha256: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, label: _Optional[str] = ..., answer: _Optional[str] = ..., images: _Optional[int] = ..., sha256: _Optional[_Iterable[str]] = ...) -> None: ...
