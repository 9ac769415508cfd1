import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AddPicturesRequest(_message.Message):
    __slots__ = ("image", "name", "source")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    name: str
    source: str
    def __init__(self, image: _Optional[bytes] = ..., name: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class AddPicturesResponse(_message.Message):
    __slots__ = ("outcome", "reason", "sha256")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[AddPicturesResponse.Outcome]
        OUTCOME_ACCEPTED: _ClassVar[AddPicturesResponse.Outcome]
        OUTCOME_DUPLICATE: _ClassVar[AddPicturesResponse.Outcome]
        OUTCOME_LABELLED: _ClassVar[AddPicturesResponse.Outcome]
        OUTCOME_FULL: _ClassVar[AddPicturesResponse.Outcome]
        OUTCOME_REJECTED: _ClassVar[AddPicturesResponse.Outcome]
    OUTCOME_UNSPECIFIED: AddPicturesResponse.Outcome
    OUTCOME_ACCEPTED: AddPicturesResponse.Outcome
    OUTCOME_DUPLICATE: AddPicturesResponse.Outcome
    OUTCOME_LABELLED: AddPicturesResponse.Outcome
    OUTCOME_FULL: AddPicturesResponse.Outcome
    OUTCOME_REJECTED: AddPicturesResponse.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    outcome: AddPicturesResponse.Outcome
    reason: str
    sha256: str
    def __init__(self, outcome: _Optional[_Union[AddPicturesResponse.Outcome, str]] = ..., reason: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class BatchAddPicturesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[AddPicturesRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[AddPicturesRequest, _Mapping]]] = ...) -> None: ...

class BatchAddPicturesResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[AddPicturesResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[AddPicturesResponse, _Mapping]]] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("sha256", "size_bytes", "source", "added_at", "image")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size_bytes: int
    source: str
    added_at: _timestamp_pb2.Timestamp
    image: bytes
    def __init__(self, sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., source: _Optional[str] = ..., added_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., image: _Optional[bytes] = ...) -> None: ...

class ListPicturesRequest(_message.Message):
    __slots__ = ("name", "with_images", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    with_images: bool
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., with_images: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPicturesResponse(_message.Message):
    __slots__ = ("pictures", "next_page_token", "total_pictures", "total_bytes", "most_pictures", "most_bytes")
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_PICTURES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MOST_PICTURES_FIELD_NUMBER: _ClassVar[int]
    MOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    pictures: _containers.RepeatedCompositeFieldContainer[Picture]
    next_page_token: str
    total_pictures: int
    total_bytes: int
    most_pictures: int
    most_bytes: int
    def __init__(self, pictures: _Optional[_Iterable[_Union[Picture, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_pictures: _Optional[int] = ..., total_bytes: _Optional[int] = ..., most_pictures: _Optional[int] = ..., most_bytes: _Optional[int] = ...) -> None: ...

class RemovePicturesRequest(_message.Message):
    __slots__ = ("name", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[_Iterable[str]] = ...) -> None: ...

class RemovePicturesResponse(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sha256: _Optional[_Iterable[str]] = ...) -> None: ...
