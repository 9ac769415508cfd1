import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LabelSet(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_SET_UNSPECIFIED: _ClassVar[LabelSet]
    LABEL_SET_OPEN: _ClassVar[LabelSet]
    LABEL_SET_CLOSED: _ClassVar[LabelSet]
LABEL_SET_UNSPECIFIED: LabelSet
LABEL_SET_OPEN: LabelSet
LABEL_SET_CLOSED: LabelSet

class CreateModelRequest(_message.Message):
    __slots__ = ("name", "backbone", "labels", "label_set", "who", "why", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SET_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    backbone: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    label_set: LabelSet
    who: str
    why: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., backbone: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., label_set: _Optional[_Union[LabelSet, str]] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateModelResponse(_message.Message):
    __slots__ = ("model", "effect")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    model: Model
    effect: HistoryEntry
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., effect: _Optional[_Union[HistoryEntry, _Mapping]] = ...) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("name", "who", "why", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    who: str
    why: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ("effect", "kept_until")
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    KEPT_UNTIL_FIELD_NUMBER: _ClassVar[int]
    effect: HistoryEntry
    kept_until: _timestamp_pb2.Timestamp
    def __init__(self, effect: _Optional[_Union[HistoryEntry, _Mapping]] = ..., kept_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RestoreModelRequest(_message.Message):
    __slots__ = ("name", "who", "why", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    who: str
    why: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RestoreModelResponse(_message.Message):
    __slots__ = ("model", "effect")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    model: Model
    effect: HistoryEntry
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., effect: _Optional[_Union[HistoryEntry, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "show_deleted")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_DELETED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    show_deleted: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., show_deleted: bool = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("name", "version", "who", "why", "expected_champion", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    who: str
    why: str
    expected_champion: int
    request_id: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., expected_champion: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ("model", "effect")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    model: Model
    effect: HistoryEntry
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., effect: _Optional[_Union[HistoryEntry, _Mapping]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("name", "who", "why", "expected_champion", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    who: str
    why: str
    expected_champion: int
    request_id: str
    def __init__(self, name: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., expected_champion: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("model", "effect")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    model: Model
    effect: HistoryEntry
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., effect: _Optional[_Union[HistoryEntry, _Mapping]] = ...) -> None: ...

class ShadowRequest(_message.Message):
    __slots__ = ("name", "version", "who", "why", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    who: str
    why: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class ShadowResponse(_message.Message):
    __slots__ = ("model", "effect")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    model: Model
    effect: HistoryEntry
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., effect: _Optional[_Union[HistoryEntry, _Mapping]] = ...) -> None: ...

class ListBackbonesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "show_addable")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_ADDABLE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    show_addable: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., show_addable: bool = ...) -> None: ...

class ListBackbonesResponse(_message.Message):
    __slots__ = ("backbones", "next_page_token", "advice")
    BACKBONES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    backbones: _containers.RepeatedCompositeFieldContainer[Backbone]
    next_page_token: str
    advice: str
    def __init__(self, backbones: _Optional[_Iterable[_Union[Backbone, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., advice: _Optional[str] = ...) -> None: ...

class Backbone(_message.Message):
    __slots__ = ("name", "digest", "weights", "weights_source", "licence", "precision", "size_bytes", "embedding_size", "input_px", "imagenet_top1", "imagenet_top1_source", "picture_ms", "is_here", "is_default", "added_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SOURCE_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_SIZE_FIELD_NUMBER: _ClassVar[int]
    INPUT_PX_FIELD_NUMBER: _ClassVar[int]
    IMAGENET_TOP1_FIELD_NUMBER: _ClassVar[int]
    IMAGENET_TOP1_SOURCE_FIELD_NUMBER: _ClassVar[int]
    PICTURE_MS_FIELD_NUMBER: _ClassVar[int]
    IS_HERE_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    weights: str
    weights_source: str
    licence: str
    precision: str
    size_bytes: int
    embedding_size: int
    input_px: int
    imagenet_top1: float
    imagenet_top1_source: str
    picture_ms: float
    is_here: bool
    is_default: bool
    added_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., weights: _Optional[str] = ..., weights_source: _Optional[str] = ..., licence: _Optional[str] = ..., precision: _Optional[str] = ..., size_bytes: _Optional[int] = ..., embedding_size: _Optional[int] = ..., input_px: _Optional[int] = ..., imagenet_top1: _Optional[float] = ..., imagenet_top1_source: _Optional[str] = ..., picture_ms: _Optional[float] = ..., is_here: bool = ..., is_default: bool = ..., added_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "served_version", "champion", "versions", "problem", "labels", "provider", "fallback_reason", "card_json", "examples", "history", "shadow", "drift", "baking", "etag", "backbone", "missing", "label_set", "kept_until")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVED_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_REASON_FIELD_NUMBER: _ClassVar[int]
    CARD_JSON_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    BAKING_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    LABEL_SET_FIELD_NUMBER: _ClassVar[int]
    KEPT_UNTIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    served_version: int
    champion: int
    versions: _containers.RepeatedScalarFieldContainer[int]
    problem: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    provider: str
    fallback_reason: str
    card_json: str
    examples: int
    history: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    shadow: Shadow
    drift: Drift
    baking: Baking
    etag: str
    backbone: str
    missing: str
    label_set: LabelSet
    kept_until: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., served_version: _Optional[int] = ..., champion: _Optional[int] = ..., versions: _Optional[_Iterable[int]] = ..., problem: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., provider: _Optional[str] = ..., fallback_reason: _Optional[str] = ..., card_json: _Optional[str] = ..., examples: _Optional[int] = ..., history: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., shadow: _Optional[_Union[Shadow, _Mapping]] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ..., baking: _Optional[_Union[Baking, _Mapping]] = ..., etag: _Optional[str] = ..., backbone: _Optional[str] = ..., missing: _Optional[str] = ..., label_set: _Optional[_Union[LabelSet, str]] = ..., kept_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Shadow(_message.Message):
    __slots__ = ("version", "problem", "images", "agreed", "confidence_shift", "flips")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    AGREED_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_SHIFT_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    version: int
    problem: str
    images: int
    agreed: int
    confidence_shift: float
    flips: _containers.RepeatedCompositeFieldContainer[Flip]
    def __init__(self, version: _Optional[int] = ..., problem: _Optional[str] = ..., images: _Optional[int] = ..., agreed: _Optional[int] = ..., confidence_shift: _Optional[float] = ..., flips: _Optional[_Iterable[_Union[Flip, _Mapping]]] = ...) -> None: ...

class Flip(_message.Message):
    __slots__ = ("champion", "shadow", "images")
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    champion: str
    shadow: str
    images: int
    def __init__(self, champion: _Optional[str] = ..., shadow: _Optional[str] = ..., images: _Optional[int] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("state", "images", "unknown_share", "shifts")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Drift.State]
        STATE_NOT_KNOWN: _ClassVar[Drift.State]
        STATE_TOO_FEW: _ClassVar[Drift.State]
        STATE_STEADY: _ClassVar[Drift.State]
        STATE_DRIFTED: _ClassVar[Drift.State]
    STATE_UNSPECIFIED: Drift.State
    STATE_NOT_KNOWN: Drift.State
    STATE_TOO_FEW: Drift.State
    STATE_STEADY: Drift.State
    STATE_DRIFTED: Drift.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SHARE_FIELD_NUMBER: _ClassVar[int]
    SHIFTS_FIELD_NUMBER: _ClassVar[int]
    state: Drift.State
    images: int
    unknown_share: float
    shifts: _containers.RepeatedCompositeFieldContainer[Shift]
    def __init__(self, state: _Optional[_Union[Drift.State, str]] = ..., images: _Optional[int] = ..., unknown_share: _Optional[float] = ..., shifts: _Optional[_Iterable[_Union[Shift, _Mapping]]] = ...) -> None: ...

class Shift(_message.Message):
    __slots__ = ("of", "ks", "p_value", "drifted")
    OF_FIELD_NUMBER: _ClassVar[int]
    KS_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_FIELD_NUMBER: _ClassVar[int]
    of: str
    ks: float
    p_value: float
    drifted: bool
    def __init__(self, of: _Optional[str] = ..., ks: _Optional[float] = ..., p_value: _Optional[float] = ..., drifted: bool = ...) -> None: ...

class Baking(_message.Message):
    __slots__ = ("version", "previous", "remaining_s", "images")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    version: int
    previous: int
    remaining_s: float
    images: int
    def __init__(self, version: _Optional[int] = ..., previous: _Optional[int] = ..., remaining_s: _Optional[float] = ..., images: _Optional[int] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("event", "version", "previous", "who", "why", "job", "at", "request_id")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    event: str
    version: int
    previous: int
    who: str
    why: str
    job: str
    at: _timestamp_pb2.Timestamp
    request_id: str
    def __init__(self, event: _Optional[str] = ..., version: _Optional[int] = ..., previous: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., job: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...
