import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListExamplesRequest(_message.Message):
    __slots__ = ("name", "label", "with_images", "quarantined", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    with_images: bool
    quarantined: bool
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., with_images: bool = ..., quarantined: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListExamplesResponse(_message.Message):
    __slots__ = ("examples", "next_page_token")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[Example]
    next_page_token: str
    def __init__(self, examples: _Optional[_Iterable[_Union[Example, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("sha256", "label", "source", "added_at", "image", "quarantine", "vouched_by", "group", "etag", "is_original")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    VOUCHED_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    IS_ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    label: str
    source: str
    added_at: _timestamp_pb2.Timestamp
    image: bytes
    quarantine: str
    vouched_by: str
    group: str
    etag: str
    is_original: bool
    def __init__(self, sha256: _Optional[str] = ..., label: _Optional[str] = ..., source: _Optional[str] = ..., added_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., image: _Optional[bytes] = ..., quarantine: _Optional[str] = ..., vouched_by: _Optional[str] = ..., group: _Optional[str] = ..., etag: _Optional[str] = ..., is_original: bool = ...) -> None: ...

class GetExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "with_image")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    with_image: bool
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., with_image: bool = ...) -> None: ...

class GetExampleResponse(_message.Message):
    __slots__ = ("example", "history")
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    example: Example
    history: _containers.RepeatedCompositeFieldContainer[Labelling]
    def __init__(self, example: _Optional[_Union[Example, _Mapping]] = ..., history: _Optional[_Iterable[_Union[Labelling, _Mapping]]] = ...) -> None: ...

class Labelling(_message.Message):
    __slots__ = ("label", "source", "annotator", "request_id", "caller", "at")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    label: str
    source: str
    annotator: str
    request_id: str
    caller: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, label: _Optional[str] = ..., source: _Optional[str] = ..., annotator: _Optional[str] = ..., request_id: _Optional[str] = ..., caller: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RelabelExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "label", "annotator", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    label: str
    annotator: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., label: _Optional[str] = ..., annotator: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class RelabelExampleResponse(_message.Message):
    __slots__ = ("example",)
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    example: Example
    def __init__(self, example: _Optional[_Union[Example, _Mapping]] = ...) -> None: ...

class RemoveExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "why", "annotator", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    why: str
    annotator: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., why: _Optional[str] = ..., annotator: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class RemoveExampleResponse(_message.Message):
    __slots__ = ("example",)
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    example: Example
    def __init__(self, example: _Optional[_Union[Example, _Mapping]] = ...) -> None: ...

class ReleaseExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "annotator", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    annotator: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., annotator: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class ReleaseExampleResponse(_message.Message):
    __slots__ = ("example",)
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    example: Example
    def __init__(self, example: _Optional[_Union[Example, _Mapping]] = ...) -> None: ...

class SuggestRequest(_message.Message):
    __slots__ = ("name", "count", "with_images")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    with_images: bool
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., with_images: bool = ...) -> None: ...

class SuggestResponse(_message.Message):
    __slots__ = ("suggestion",)
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    suggestion: Suggestion
    def __init__(self, suggestion: _Optional[_Union[Suggestion, _Mapping]] = ...) -> None: ...

class Suggestion(_message.Message):
    __slots__ = ("request_id", "reason", "label", "probability", "novelty", "image")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Suggestion.Reason]
        REASON_RANDOM: _ClassVar[Suggestion.Reason]
        REASON_TYPICAL: _ClassVar[Suggestion.Reason]
        REASON_UNCERTAIN: _ClassVar[Suggestion.Reason]
        REASON_NOVEL: _ClassVar[Suggestion.Reason]
    REASON_UNSPECIFIED: Suggestion.Reason
    REASON_RANDOM: Suggestion.Reason
    REASON_TYPICAL: Suggestion.Reason
    REASON_UNCERTAIN: Suggestion.Reason
    REASON_NOVEL: Suggestion.Reason
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: Suggestion.Reason
    label: str
    probability: float
    novelty: float
    image: bytes
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[_Union[Suggestion.Reason, str]] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., novelty: _Optional[float] = ..., image: _Optional[bytes] = ...) -> None: ...
