import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from regraft.v1 import classifier_pb2 as _classifier_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Split(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_UNSPECIFIED: _ClassVar[Split]
    SPLIT_TRAINING: _ClassVar[Split]
    SPLIT_HOLDOUT: _ClassVar[Split]
    SPLIT_UNDECIDED: _ClassVar[Split]
SPLIT_UNSPECIFIED: Split
SPLIT_TRAINING: Split
SPLIT_HOLDOUT: Split
SPLIT_UNDECIDED: Split

class ListExamplesRequest(_message.Message):
    __slots__ = ("name", "label", "with_images", "quarantined", "page_size", "page_token", "split", "source", "annotator", "outcome", "suspected", "since", "order", "with_predictions")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ListExamplesRequest.Outcome]
        OUTCOME_RIGHT: _ClassVar[ListExamplesRequest.Outcome]
        OUTCOME_WRONG: _ClassVar[ListExamplesRequest.Outcome]
    OUTCOME_UNSPECIFIED: ListExamplesRequest.Outcome
    OUTCOME_RIGHT: ListExamplesRequest.Outcome
    OUTCOME_WRONG: ListExamplesRequest.Outcome
    class Order(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ORDER_UNSPECIFIED: _ClassVar[ListExamplesRequest.Order]
        ORDER_NEWEST: _ClassVar[ListExamplesRequest.Order]
        ORDER_LIKELY_WRONG: _ClassVar[ListExamplesRequest.Order]
        ORDER_LEAST_SURE: _ClassVar[ListExamplesRequest.Order]
        ORDER_MOST_NOVEL: _ClassVar[ListExamplesRequest.Order]
    ORDER_UNSPECIFIED: ListExamplesRequest.Order
    ORDER_NEWEST: ListExamplesRequest.Order
    ORDER_LIKELY_WRONG: ListExamplesRequest.Order
    ORDER_LEAST_SURE: ListExamplesRequest.Order
    ORDER_MOST_NOVEL: ListExamplesRequest.Order
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    WITH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SUSPECTED_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    WITH_PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    with_images: bool
    quarantined: bool
    page_size: int
    page_token: str
    split: Split
    source: str
    annotator: str
    outcome: ListExamplesRequest.Outcome
    suspected: bool
    since: _timestamp_pb2.Timestamp
    order: ListExamplesRequest.Order
    with_predictions: bool
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., with_images: bool = ..., quarantined: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., split: _Optional[_Union[Split, str]] = ..., source: _Optional[str] = ..., annotator: _Optional[str] = ..., outcome: _Optional[_Union[ListExamplesRequest.Outcome, str]] = ..., suspected: bool = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., order: _Optional[_Union[ListExamplesRequest.Order, str]] = ..., with_predictions: bool = ...) -> None: ...

class ListExamplesResponse(_message.Message):
    __slots__ = ("examples", "next_page_token", "predictions_pending", "version")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_PENDING_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[Example]
    next_page_token: str
    predictions_pending: int
    version: int
    def __init__(self, examples: _Optional[_Iterable[_Union[Example, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., predictions_pending: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class ExamplePrediction(_message.Message):
    __slots__ = ("label", "probability", "label_probability", "novelty", "suspicion", "suspected", "unseen")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LABEL_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    SUSPICION_FIELD_NUMBER: _ClassVar[int]
    SUSPECTED_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    label_probability: float
    novelty: float
    suspicion: float
    suspected: bool
    unseen: bool
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ..., label_probability: _Optional[float] = ..., novelty: _Optional[float] = ..., suspicion: _Optional[float] = ..., suspected: bool = ..., unseen: bool = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("sha256", "label", "source", "added_at", "image", "quarantine", "vouched_by", "group", "etag", "is_original", "annotator", "split", "prediction")
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
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
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
    annotator: str
    split: Split
    prediction: ExamplePrediction
    def __init__(self, sha256: _Optional[str] = ..., label: _Optional[str] = ..., source: _Optional[str] = ..., added_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., image: _Optional[bytes] = ..., quarantine: _Optional[str] = ..., vouched_by: _Optional[str] = ..., group: _Optional[str] = ..., etag: _Optional[str] = ..., is_original: bool = ..., annotator: _Optional[str] = ..., split: _Optional[_Union[Split, str]] = ..., prediction: _Optional[_Union[ExamplePrediction, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("request_id", "reason", "label", "probability", "novelty", "image", "sha256", "other_label", "other_probability", "alike", "why")
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
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OTHER_LABEL_FIELD_NUMBER: _ClassVar[int]
    OTHER_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ALIKE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: Suggestion.Reason
    label: str
    probability: float
    novelty: float
    image: bytes
    sha256: str
    other_label: str
    other_probability: float
    alike: int
    why: str
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[_Union[Suggestion.Reason, str]] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., novelty: _Optional[float] = ..., image: _Optional[bytes] = ..., sha256: _Optional[str] = ..., other_label: _Optional[str] = ..., other_probability: _Optional[float] = ..., alike: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class GetLearningCurveRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetLearningCurveResponse(_message.Message):
    __slots__ = ("curve",)
    CURVE_FIELD_NUMBER: _ClassVar[int]
    curve: LearningCurve
    def __init__(self, curve: _Optional[_Union[LearningCurve, _Mapping]] = ...) -> None: ...

class LearningCurve(_message.Message):
    __slots__ = ("labels", "points", "forecasts", "weakest", "unknown")
    class Point(_message.Message):
        __slots__ = ("share", "labels", "accuracy", "accuracy_low", "accuracy_high")
        SHARE_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        ACCURACY_FIELD_NUMBER: _ClassVar[int]
        ACCURACY_LOW_FIELD_NUMBER: _ClassVar[int]
        ACCURACY_HIGH_FIELD_NUMBER: _ClassVar[int]
        share: float
        labels: int
        accuracy: float
        accuracy_low: float
        accuracy_high: float
        def __init__(self, share: _Optional[float] = ..., labels: _Optional[int] = ..., accuracy: _Optional[float] = ..., accuracy_low: _Optional[float] = ..., accuracy_high: _Optional[float] = ...) -> None: ...
    class Forecast(_message.Message):
        __slots__ = ("more", "accuracy", "accuracy_low", "accuracy_high", "gain")
        MORE_FIELD_NUMBER: _ClassVar[int]
        ACCURACY_FIELD_NUMBER: _ClassVar[int]
        ACCURACY_LOW_FIELD_NUMBER: _ClassVar[int]
        ACCURACY_HIGH_FIELD_NUMBER: _ClassVar[int]
        GAIN_FIELD_NUMBER: _ClassVar[int]
        more: int
        accuracy: float
        accuracy_low: float
        accuracy_high: float
        gain: float
        def __init__(self, more: _Optional[int] = ..., accuracy: _Optional[float] = ..., accuracy_low: _Optional[float] = ..., accuracy_high: _Optional[float] = ..., gain: _Optional[float] = ...) -> None: ...
    class ClassCurve(_message.Message):
        __slots__ = ("label", "images", "points", "forecasts")
        LABEL_FIELD_NUMBER: _ClassVar[int]
        IMAGES_FIELD_NUMBER: _ClassVar[int]
        POINTS_FIELD_NUMBER: _ClassVar[int]
        FORECASTS_FIELD_NUMBER: _ClassVar[int]
        label: str
        images: int
        points: _containers.RepeatedCompositeFieldContainer[LearningCurve.Point]
        forecasts: _containers.RepeatedCompositeFieldContainer[LearningCurve.Forecast]
        def __init__(self, label: _Optional[str] = ..., images: _Optional[int] = ..., points: _Optional[_Iterable[_Union[LearningCurve.Point, _Mapping]]] = ..., forecasts: _Optional[_Iterable[_Union[LearningCurve.Forecast, _Mapping]]] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    FORECASTS_FIELD_NUMBER: _ClassVar[int]
    WEAKEST_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    labels: int
    points: _containers.RepeatedCompositeFieldContainer[LearningCurve.Point]
    forecasts: _containers.RepeatedCompositeFieldContainer[LearningCurve.Forecast]
    weakest: _containers.RepeatedCompositeFieldContainer[LearningCurve.ClassCurve]
    unknown: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[int] = ..., points: _Optional[_Iterable[_Union[LearningCurve.Point, _Mapping]]] = ..., forecasts: _Optional[_Iterable[_Union[LearningCurve.Forecast, _Mapping]]] = ..., weakest: _Optional[_Iterable[_Union[LearningCurve.ClassCurve, _Mapping]]] = ..., unknown: _Optional[_Iterable[str]] = ...) -> None: ...

class NeighboursRequest(_message.Message):
    __slots__ = ("name", "image", "sha256", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    image: bytes
    sha256: str
    count: int
    def __init__(self, name: _Optional[str] = ..., image: _Optional[bytes] = ..., sha256: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class NeighboursResponse(_message.Message):
    __slots__ = ("version", "answer", "probability", "neighbours")
    class Neighbour(_message.Message):
        __slots__ = ("sha256", "label", "source", "split", "is_learned", "similarity")
        SHA256_FIELD_NUMBER: _ClassVar[int]
        LABEL_FIELD_NUMBER: _ClassVar[int]
        SOURCE_FIELD_NUMBER: _ClassVar[int]
        SPLIT_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNED_FIELD_NUMBER: _ClassVar[int]
        SIMILARITY_FIELD_NUMBER: _ClassVar[int]
        sha256: str
        label: str
        source: str
        split: Split
        is_learned: bool
        similarity: float
        def __init__(self, sha256: _Optional[str] = ..., label: _Optional[str] = ..., source: _Optional[str] = ..., split: _Optional[_Union[Split, str]] = ..., is_learned: bool = ..., similarity: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    version: int
    answer: str
    probability: float
    neighbours: _containers.RepeatedCompositeFieldContainer[NeighboursResponse.Neighbour]
    def __init__(self, version: _Optional[int] = ..., answer: _Optional[str] = ..., probability: _Optional[float] = ..., neighbours: _Optional[_Iterable[_Union[NeighboursResponse.Neighbour, _Mapping]]] = ...) -> None: ...

class MapRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class MapResponse(_message.Message):
    __slots__ = ("axes_version", "labels", "not_embedded", "points")
    class Point(_message.Message):
        __slots__ = ("sha256", "label_index", "split", "is_learned", "x", "y")
        SHA256_FIELD_NUMBER: _ClassVar[int]
        LABEL_INDEX_FIELD_NUMBER: _ClassVar[int]
        SPLIT_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNED_FIELD_NUMBER: _ClassVar[int]
        X_FIELD_NUMBER: _ClassVar[int]
        Y_FIELD_NUMBER: _ClassVar[int]
        sha256: str
        label_index: int
        split: Split
        is_learned: bool
        x: float
        y: float
        def __init__(self, sha256: _Optional[str] = ..., label_index: _Optional[int] = ..., split: _Optional[_Union[Split, str]] = ..., is_learned: bool = ..., x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...
    AXES_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NOT_EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    axes_version: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    not_embedded: int
    points: _containers.RepeatedCompositeFieldContainer[MapResponse.Point]
    def __init__(self, axes_version: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., not_embedded: _Optional[int] = ..., points: _Optional[_Iterable[_Union[MapResponse.Point, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("name", "image", "sha256", "label")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    image: bytes
    sha256: str
    label: str
    def __init__(self, name: _Optional[str] = ..., image: _Optional[bytes] = ..., sha256: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("version", "label", "probability", "overlay", "cells", "heat")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    HEAT_FIELD_NUMBER: _ClassVar[int]
    version: int
    label: str
    probability: float
    overlay: bytes
    cells: int
    heat: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, version: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., overlay: _Optional[bytes] = ..., cells: _Optional[int] = ..., heat: _Optional[_Iterable[float]] = ...) -> None: ...

class RelabelExamplesRequest(_message.Message):
    __slots__ = ("name", "sha256", "label", "annotator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: _containers.RepeatedScalarFieldContainer[str]
    label: str
    annotator: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[_Iterable[str]] = ..., label: _Optional[str] = ..., annotator: _Optional[str] = ...) -> None: ...

class RelabelExamplesResponse(_message.Message):
    __slots__ = ("changed", "unchanged")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: int
    unchanged: int
    def __init__(self, changed: _Optional[int] = ..., unchanged: _Optional[int] = ...) -> None: ...

class RemoveExamplesRequest(_message.Message):
    __slots__ = ("name", "sha256", "why", "annotator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: _containers.RepeatedScalarFieldContainer[str]
    why: str
    annotator: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[_Iterable[str]] = ..., why: _Optional[str] = ..., annotator: _Optional[str] = ...) -> None: ...

class RemoveExamplesResponse(_message.Message):
    __slots__ = ("changed", "unchanged")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: int
    unchanged: int
    def __init__(self, changed: _Optional[int] = ..., unchanged: _Optional[int] = ...) -> None: ...

class RestoreExamplesRequest(_message.Message):
    __slots__ = ("name", "sha256", "annotator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: _containers.RepeatedScalarFieldContainer[str]
    annotator: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[_Iterable[str]] = ..., annotator: _Optional[str] = ...) -> None: ...

class RestoreExamplesResponse(_message.Message):
    __slots__ = ("changed", "unchanged")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: int
    unchanged: int
    def __init__(self, changed: _Optional[int] = ..., unchanged: _Optional[int] = ...) -> None: ...

class LabelChange(_message.Message):
    __slots__ = ("label", "new_label", "annotator", "why", "caller", "at")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NEW_LABEL_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    label: str
    new_label: str
    annotator: str
    why: str
    caller: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, label: _Optional[str] = ..., new_label: _Optional[str] = ..., annotator: _Optional[str] = ..., why: _Optional[str] = ..., caller: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RenameLabelRequest(_message.Message):
    __slots__ = ("name", "label", "new_label", "merge", "annotator", "why")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NEW_LABEL_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    new_label: str
    merge: bool
    annotator: str
    why: str
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., new_label: _Optional[str] = ..., merge: bool = ..., annotator: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class RenameLabelResponse(_message.Message):
    __slots__ = ("change", "examples")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    change: LabelChange
    examples: int
    def __init__(self, change: _Optional[_Union[LabelChange, _Mapping]] = ..., examples: _Optional[int] = ...) -> None: ...

class RemoveLabelRequest(_message.Message):
    __slots__ = ("name", "label", "annotator", "why")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    annotator: str
    why: str
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., annotator: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class RemoveLabelResponse(_message.Message):
    __slots__ = ("change", "examples")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    change: LabelChange
    examples: int
    def __init__(self, change: _Optional[_Union[LabelChange, _Mapping]] = ..., examples: _Optional[int] = ...) -> None: ...

class GetThumbnailsRequest(_message.Message):
    __slots__ = ("name", "sha256", "side_px")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: _containers.RepeatedScalarFieldContainer[str]
    side_px: int
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[_Iterable[str]] = ..., side_px: _Optional[int] = ...) -> None: ...

class GetThumbnailsResponse(_message.Message):
    __slots__ = ("thumbnails",)
    THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    thumbnails: _containers.RepeatedCompositeFieldContainer[Thumbnail]
    def __init__(self, thumbnails: _Optional[_Iterable[_Union[Thumbnail, _Mapping]]] = ...) -> None: ...

class Thumbnail(_message.Message):
    __slots__ = ("sha256", "image", "error")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    image: bytes
    error: _classifier_pb2.PictureError
    def __init__(self, sha256: _Optional[str] = ..., image: _Optional[bytes] = ..., error: _Optional[_Union[_classifier_pb2.PictureError, _Mapping]] = ...) -> None: ...
