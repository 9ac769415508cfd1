from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListExamplesRequest(_message.Message):
    __slots__ = ("name", "label", "with_images", "quarantined")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    with_images: bool
    quarantined: bool
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., with_images: bool = ..., quarantined: bool = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("sha256", "label", "source", "added_at", "image", "quarantine", "vouched_by", "group")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    VOUCHED_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    label: str
    source: str
    added_at: str
    image: bytes
    quarantine: str
    vouched_by: str
    group: str
    def __init__(self, sha256: _Optional[str] = ..., label: _Optional[str] = ..., source: _Optional[str] = ..., added_at: _Optional[str] = ..., image: _Optional[bytes] = ..., quarantine: _Optional[str] = ..., vouched_by: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

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
    at: str
    def __init__(self, label: _Optional[str] = ..., source: _Optional[str] = ..., annotator: _Optional[str] = ..., request_id: _Optional[str] = ..., caller: _Optional[str] = ..., at: _Optional[str] = ...) -> None: ...

class RelabelExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "label", "annotator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    label: str
    annotator: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., label: _Optional[str] = ..., annotator: _Optional[str] = ...) -> None: ...

class RemoveExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "why", "annotator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    why: str
    annotator: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., why: _Optional[str] = ..., annotator: _Optional[str] = ...) -> None: ...

class ReleaseExampleRequest(_message.Message):
    __slots__ = ("name", "sha256", "annotator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    annotator: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., annotator: _Optional[str] = ...) -> None: ...

class SuggestRequest(_message.Message):
    __slots__ = ("name", "count", "with_images")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    with_images: bool
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., with_images: bool = ...) -> None: ...

class Suggestion(_message.Message):
    __slots__ = ("request_id", "reason", "label", "probability", "novelty", "image")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Suggestion.Reason]
        RANDOM: _ClassVar[Suggestion.Reason]
        TYPICAL: _ClassVar[Suggestion.Reason]
        UNCERTAIN: _ClassVar[Suggestion.Reason]
        NOVEL: _ClassVar[Suggestion.Reason]
    REASON_UNSPECIFIED: Suggestion.Reason
    RANDOM: Suggestion.Reason
    TYPICAL: Suggestion.Reason
    UNCERTAIN: Suggestion.Reason
    NOVEL: Suggestion.Reason
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
