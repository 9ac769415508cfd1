from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AddExamplesRequest(_message.Message):
    __slots__ = ("image", "label", "name", "source")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    label: str
    name: str
    source: str
    def __init__(self, image: _Optional[bytes] = ..., label: _Optional[str] = ..., name: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class AddExamplesResponse(_message.Message):
    __slots__ = ("outcome", "reason", "sha256")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[AddExamplesResponse.Outcome]
        ACCEPTED: _ClassVar[AddExamplesResponse.Outcome]
        DUPLICATE: _ClassVar[AddExamplesResponse.Outcome]
        RELABELLED: _ClassVar[AddExamplesResponse.Outcome]
        REJECTED: _ClassVar[AddExamplesResponse.Outcome]
    OUTCOME_UNSPECIFIED: AddExamplesResponse.Outcome
    ACCEPTED: AddExamplesResponse.Outcome
    DUPLICATE: AddExamplesResponse.Outcome
    RELABELLED: AddExamplesResponse.Outcome
    REJECTED: AddExamplesResponse.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    outcome: AddExamplesResponse.Outcome
    reason: str
    sha256: str
    def __init__(self, outcome: _Optional[_Union[AddExamplesResponse.Outcome, str]] = ..., reason: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class RetrainRequest(_message.Message):
    __slots__ = ("name", "max_drop", "max_class_drop", "requested_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_DROP_FIELD_NUMBER: _ClassVar[int]
    MAX_CLASS_DROP_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_drop: float
    max_class_drop: float
    requested_by: str
    def __init__(self, name: _Optional[str] = ..., max_drop: _Optional[float] = ..., max_class_drop: _Optional[float] = ..., requested_by: _Optional[str] = ...) -> None: ...

class GetRetrainJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRetrainJobsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListRetrainJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[RetrainJob]
    def __init__(self, jobs: _Optional[_Iterable[_Union[RetrainJob, _Mapping]]] = ...) -> None: ...

class CancelRetrainJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RetrainJob(_message.Message):
    __slots__ = ("id", "name", "state", "phase", "fraction", "message", "requested_by", "champion", "version", "verdict", "created_at", "finished_at")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[RetrainJob.State]
        PENDING: _ClassVar[RetrainJob.State]
        RUNNING: _ClassVar[RetrainJob.State]
        SUCCEEDED: _ClassVar[RetrainJob.State]
        REFUSED: _ClassVar[RetrainJob.State]
        FAILED: _ClassVar[RetrainJob.State]
        CANCELLED: _ClassVar[RetrainJob.State]
    STATE_UNSPECIFIED: RetrainJob.State
    PENDING: RetrainJob.State
    RUNNING: RetrainJob.State
    SUCCEEDED: RetrainJob.State
    REFUSED: RetrainJob.State
    FAILED: RetrainJob.State
    CANCELLED: RetrainJob.State
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: RetrainJob.State
    phase: str
    fraction: float
    message: str
    requested_by: str
    champion: int
    version: int
    verdict: Verdict
    created_at: str
    finished_at: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[RetrainJob.State, str]] = ..., phase: _Optional[str] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ..., requested_by: _Optional[str] = ..., champion: _Optional[int] = ..., version: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., created_at: _Optional[str] = ..., finished_at: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("blessed", "reasons", "holdout_images", "champion_accuracy", "challenger_accuracy", "champion_known_accuracy", "challenger_known_accuracy", "classes")
    BLESSED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_KNOWN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_KNOWN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    blessed: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    holdout_images: int
    champion_accuracy: float
    challenger_accuracy: float
    champion_known_accuracy: float
    challenger_known_accuracy: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassVerdict]
    def __init__(self, blessed: bool = ..., reasons: _Optional[_Iterable[str]] = ..., holdout_images: _Optional[int] = ..., champion_accuracy: _Optional[float] = ..., challenger_accuracy: _Optional[float] = ..., champion_known_accuracy: _Optional[float] = ..., challenger_known_accuracy: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassVerdict, _Mapping]]] = ...) -> None: ...

class ClassVerdict(_message.Message):
    __slots__ = ("label", "holdout_images", "champion_recall", "challenger_recall", "is_new")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_RECALL_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_RECALL_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    label: str
    holdout_images: int
    champion_recall: float
    challenger_recall: float
    is_new: bool
    def __init__(self, label: _Optional[str] = ..., holdout_images: _Optional[int] = ..., champion_recall: _Optional[float] = ..., challenger_recall: _Optional[float] = ..., is_new: bool = ...) -> None: ...
