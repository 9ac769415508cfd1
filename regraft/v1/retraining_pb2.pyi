import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from regraft.v1 import examples_pb2 as _examples_pb2
from regraft.v1 import reports_pb2 as _reports_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GateMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GATE_MODE_UNSPECIFIED: _ClassVar[GateMode]
    GATE_MODE_AUTO: _ClassVar[GateMode]
    GATE_MODE_MANUAL: _ClassVar[GateMode]
    GATE_MODE_OFF: _ClassVar[GateMode]
GATE_MODE_UNSPECIFIED: GateMode
GATE_MODE_AUTO: GateMode
GATE_MODE_MANUAL: GateMode
GATE_MODE_OFF: GateMode

class AddExamplesRequest(_message.Message):
    __slots__ = ("image", "label", "name", "source", "annotator", "request_id", "group", "sha256")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    label: str
    name: str
    source: str
    annotator: str
    request_id: str
    group: str
    sha256: str
    def __init__(self, image: _Optional[bytes] = ..., label: _Optional[str] = ..., name: _Optional[str] = ..., source: _Optional[str] = ..., annotator: _Optional[str] = ..., request_id: _Optional[str] = ..., group: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class AddExamplesResponse(_message.Message):
    __slots__ = ("outcome", "reason", "sha256", "retry_after_s")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[AddExamplesResponse.Outcome]
        OUTCOME_ACCEPTED: _ClassVar[AddExamplesResponse.Outcome]
        OUTCOME_DUPLICATE: _ClassVar[AddExamplesResponse.Outcome]
        OUTCOME_RELABELLED: _ClassVar[AddExamplesResponse.Outcome]
        OUTCOME_REJECTED: _ClassVar[AddExamplesResponse.Outcome]
        OUTCOME_CONFLICTING: _ClassVar[AddExamplesResponse.Outcome]
    OUTCOME_UNSPECIFIED: AddExamplesResponse.Outcome
    OUTCOME_ACCEPTED: AddExamplesResponse.Outcome
    OUTCOME_DUPLICATE: AddExamplesResponse.Outcome
    OUTCOME_RELABELLED: AddExamplesResponse.Outcome
    OUTCOME_REJECTED: AddExamplesResponse.Outcome
    OUTCOME_CONFLICTING: AddExamplesResponse.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    outcome: AddExamplesResponse.Outcome
    reason: str
    sha256: str
    retry_after_s: float
    def __init__(self, outcome: _Optional[_Union[AddExamplesResponse.Outcome, str]] = ..., reason: _Optional[str] = ..., sha256: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class BatchAddExamplesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[AddExamplesRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[AddExamplesRequest, _Mapping]]] = ...) -> None: ...

class BatchAddExamplesResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[AddExamplesResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[AddExamplesResponse, _Mapping]]] = ...) -> None: ...

class RetrainRequest(_message.Message):
    __slots__ = ("name", "requested_by", "idempotency_key", "gate", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    requested_by: str
    idempotency_key: str
    gate: GateMode
    limits: GateLimits
    def __init__(self, name: _Optional[str] = ..., requested_by: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., gate: _Optional[_Union[GateMode, str]] = ..., limits: _Optional[_Union[GateLimits, _Mapping]] = ...) -> None: ...

class RetrainResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: RetrainJob
    def __init__(self, job: _Optional[_Union[RetrainJob, _Mapping]] = ...) -> None: ...

class TrainRequest(_message.Message):
    __slots__ = ("name", "requested_by", "idempotency_key", "gate", "limits", "backbone", "strategy", "precision", "epochs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    name: str
    requested_by: str
    idempotency_key: str
    gate: GateMode
    limits: GateLimits
    backbone: str
    strategy: str
    precision: str
    epochs: int
    def __init__(self, name: _Optional[str] = ..., requested_by: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., gate: _Optional[_Union[GateMode, str]] = ..., limits: _Optional[_Union[GateLimits, _Mapping]] = ..., backbone: _Optional[str] = ..., strategy: _Optional[str] = ..., precision: _Optional[str] = ..., epochs: _Optional[int] = ...) -> None: ...

class TrainResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: RetrainJob
    def __init__(self, job: _Optional[_Union[RetrainJob, _Mapping]] = ...) -> None: ...

class GateLimits(_message.Message):
    __slots__ = ("max_drop", "max_class_drop", "max_slice_drop", "min_accuracy", "min_class_recall", "min_slice_accuracy", "max_suspects")
    MAX_DROP_FIELD_NUMBER: _ClassVar[int]
    MAX_CLASS_DROP_FIELD_NUMBER: _ClassVar[int]
    MAX_SLICE_DROP_FIELD_NUMBER: _ClassVar[int]
    MIN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    MIN_CLASS_RECALL_FIELD_NUMBER: _ClassVar[int]
    MIN_SLICE_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    MAX_SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    max_drop: float
    max_class_drop: float
    max_slice_drop: float
    min_accuracy: float
    min_class_recall: float
    min_slice_accuracy: float
    max_suspects: float
    def __init__(self, max_drop: _Optional[float] = ..., max_class_drop: _Optional[float] = ..., max_slice_drop: _Optional[float] = ..., min_accuracy: _Optional[float] = ..., min_class_recall: _Optional[float] = ..., min_slice_accuracy: _Optional[float] = ..., max_suspects: _Optional[float] = ...) -> None: ...

class GetRetrainJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetRetrainJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: RetrainJob
    def __init__(self, job: _Optional[_Union[RetrainJob, _Mapping]] = ...) -> None: ...

class WatchRetrainJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchRetrainJobResponse(_message.Message):
    __slots__ = ("job", "points")
    JOB_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    job: RetrainJob
    points: _containers.RepeatedCompositeFieldContainer[LearningPoint]
    def __init__(self, job: _Optional[_Union[RetrainJob, _Mapping]] = ..., points: _Optional[_Iterable[_Union[LearningPoint, _Mapping]]] = ...) -> None: ...

class ListRetrainJobsRequest(_message.Message):
    __slots__ = ("name", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRetrainJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[RetrainJob]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[RetrainJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelRetrainJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelRetrainJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: RetrainJob
    def __init__(self, job: _Optional[_Union[RetrainJob, _Mapping]] = ...) -> None: ...

class RetrainJob(_message.Message):
    __slots__ = ("id", "name", "state", "phase", "fraction", "message", "requested_by", "champion", "version", "verdict", "created_at", "finished_at", "kind", "points")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[RetrainJob.State]
        STATE_PENDING: _ClassVar[RetrainJob.State]
        STATE_RUNNING: _ClassVar[RetrainJob.State]
        STATE_SUCCEEDED: _ClassVar[RetrainJob.State]
        STATE_REFUSED: _ClassVar[RetrainJob.State]
        STATE_FAILED: _ClassVar[RetrainJob.State]
        STATE_CANCELLED: _ClassVar[RetrainJob.State]
    STATE_UNSPECIFIED: RetrainJob.State
    STATE_PENDING: RetrainJob.State
    STATE_RUNNING: RetrainJob.State
    STATE_SUCCEEDED: RetrainJob.State
    STATE_REFUSED: RetrainJob.State
    STATE_FAILED: RetrainJob.State
    STATE_CANCELLED: RetrainJob.State
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[RetrainJob.Kind]
        KIND_RETRAIN: _ClassVar[RetrainJob.Kind]
        KIND_TRAIN: _ClassVar[RetrainJob.Kind]
    KIND_UNSPECIFIED: RetrainJob.Kind
    KIND_RETRAIN: RetrainJob.Kind
    KIND_TRAIN: RetrainJob.Kind
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
    KIND_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
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
    created_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    kind: RetrainJob.Kind
    points: _containers.RepeatedCompositeFieldContainer[LearningPoint]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[RetrainJob.State, str]] = ..., phase: _Optional[str] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ..., requested_by: _Optional[str] = ..., champion: _Optional[int] = ..., version: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[RetrainJob.Kind, str]] = ..., points: _Optional[_Iterable[_Union[LearningPoint, _Mapping]]] = ...) -> None: ...

class LearningPoint(_message.Message):
    __slots__ = ("epoch", "epochs", "loss", "tune_loss", "accuracy")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TUNE_LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    epochs: int
    loss: float
    tune_loss: float
    accuracy: float
    def __init__(self, epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., loss: _Optional[float] = ..., tune_loss: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("blessed", "reasons", "holdout_images", "champion_accuracy", "challenger_accuracy", "champion_known_accuracy", "challenger_known_accuracy", "classes", "cautions", "p_value", "slices", "golden_images", "golden_failures", "new_images", "suspects", "suspects_p_value", "old_suspect_share", "suspected", "loss_p_value", "loss_bound", "quarantined", "in_quarantine", "anchor", "champion_log_loss", "challenger_log_loss", "log_loss_p_value", "champion_calibration_error", "challenger_calibration_error", "first")
    BLESSED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_KNOWN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_KNOWN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_IMAGES_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FAILURES_FIELD_NUMBER: _ClassVar[int]
    NEW_IMAGES_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    OLD_SUSPECT_SHARE_FIELD_NUMBER: _ClassVar[int]
    SUSPECTED_FIELD_NUMBER: _ClassVar[int]
    LOSS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    LOSS_BOUND_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    IN_QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_LOG_LOSS_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_LOG_LOSS_FIELD_NUMBER: _ClassVar[int]
    LOG_LOSS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    blessed: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    holdout_images: int
    champion_accuracy: float
    challenger_accuracy: float
    champion_known_accuracy: float
    challenger_known_accuracy: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassVerdict]
    cautions: _containers.RepeatedScalarFieldContainer[str]
    p_value: float
    slices: _containers.RepeatedCompositeFieldContainer[SliceVerdict]
    golden_images: int
    golden_failures: _containers.RepeatedScalarFieldContainer[str]
    new_images: int
    suspects: int
    suspects_p_value: float
    old_suspect_share: float
    suspected: _containers.RepeatedCompositeFieldContainer[SuspectLabel]
    loss_p_value: float
    loss_bound: float
    quarantined: int
    in_quarantine: int
    anchor: AnchorVerdict
    champion_log_loss: float
    challenger_log_loss: float
    log_loss_p_value: float
    champion_calibration_error: float
    challenger_calibration_error: float
    first: FirstEvidence
    def __init__(self, blessed: bool = ..., reasons: _Optional[_Iterable[str]] = ..., holdout_images: _Optional[int] = ..., champion_accuracy: _Optional[float] = ..., challenger_accuracy: _Optional[float] = ..., champion_known_accuracy: _Optional[float] = ..., challenger_known_accuracy: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassVerdict, _Mapping]]] = ..., cautions: _Optional[_Iterable[str]] = ..., p_value: _Optional[float] = ..., slices: _Optional[_Iterable[_Union[SliceVerdict, _Mapping]]] = ..., golden_images: _Optional[int] = ..., golden_failures: _Optional[_Iterable[str]] = ..., new_images: _Optional[int] = ..., suspects: _Optional[int] = ..., suspects_p_value: _Optional[float] = ..., old_suspect_share: _Optional[float] = ..., suspected: _Optional[_Iterable[_Union[SuspectLabel, _Mapping]]] = ..., loss_p_value: _Optional[float] = ..., loss_bound: _Optional[float] = ..., quarantined: _Optional[int] = ..., in_quarantine: _Optional[int] = ..., anchor: _Optional[_Union[AnchorVerdict, _Mapping]] = ..., champion_log_loss: _Optional[float] = ..., challenger_log_loss: _Optional[float] = ..., log_loss_p_value: _Optional[float] = ..., champion_calibration_error: _Optional[float] = ..., challenger_calibration_error: _Optional[float] = ..., first: _Optional[_Union[FirstEvidence, _Mapping]] = ...) -> None: ...

class FirstEvidence(_message.Message):
    __slots__ = ("images", "cross_validated_accuracy", "low", "high", "holdout_images", "holdout_accuracy", "accuracy")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CROSS_VALIDATED_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    images: int
    cross_validated_accuracy: float
    low: float
    high: float
    holdout_images: int
    holdout_accuracy: float
    accuracy: float
    def __init__(self, images: _Optional[int] = ..., cross_validated_accuracy: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., holdout_images: _Optional[int] = ..., holdout_accuracy: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...

class AnchorVerdict(_message.Message):
    __slots__ = ("images", "best_accuracy", "accuracy", "loss_p_value", "classes")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    BEST_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOSS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    images: int
    best_accuracy: float
    accuracy: float
    loss_p_value: float
    classes: _containers.RepeatedCompositeFieldContainer[AnchorClass]
    def __init__(self, images: _Optional[int] = ..., best_accuracy: _Optional[float] = ..., accuracy: _Optional[float] = ..., loss_p_value: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[AnchorClass, _Mapping]]] = ...) -> None: ...

class AnchorClass(_message.Message):
    __slots__ = ("label", "images", "best_recall", "recall", "loss_p_value")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    BEST_RECALL_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    LOSS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    label: str
    images: int
    best_recall: float
    recall: float
    loss_p_value: float
    def __init__(self, label: _Optional[str] = ..., images: _Optional[int] = ..., best_recall: _Optional[float] = ..., recall: _Optional[float] = ..., loss_p_value: _Optional[float] = ...) -> None: ...

class SuspectLabel(_message.Message):
    __slots__ = ("sha256", "label", "answer", "probability", "label_probability", "source")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LABEL_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    label: str
    answer: str
    probability: float
    label_probability: float
    source: str
    def __init__(self, sha256: _Optional[str] = ..., label: _Optional[str] = ..., answer: _Optional[str] = ..., probability: _Optional[float] = ..., label_probability: _Optional[float] = ..., source: _Optional[str] = ...) -> None: ...

class SliceVerdict(_message.Message):
    __slots__ = ("source", "holdout_images", "champion_accuracy", "challenger_accuracy", "p_value", "new_images", "suspects", "suspects_p_value", "challenger_old_labels_accuracy", "loss_p_value", "loss_bound")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    NEW_IMAGES_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_OLD_LABELS_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOSS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    LOSS_BOUND_FIELD_NUMBER: _ClassVar[int]
    source: str
    holdout_images: int
    champion_accuracy: float
    challenger_accuracy: float
    p_value: float
    new_images: int
    suspects: int
    suspects_p_value: float
    challenger_old_labels_accuracy: float
    loss_p_value: float
    loss_bound: float
    def __init__(self, source: _Optional[str] = ..., holdout_images: _Optional[int] = ..., champion_accuracy: _Optional[float] = ..., challenger_accuracy: _Optional[float] = ..., p_value: _Optional[float] = ..., new_images: _Optional[int] = ..., suspects: _Optional[int] = ..., suspects_p_value: _Optional[float] = ..., challenger_old_labels_accuracy: _Optional[float] = ..., loss_p_value: _Optional[float] = ..., loss_bound: _Optional[float] = ...) -> None: ...

class ClassVerdict(_message.Message):
    __slots__ = ("label", "holdout_images", "champion_recall", "challenger_recall", "is_new", "p_value", "challenger_old_labels_recall", "loss_p_value", "loss_bound")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_RECALL_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_RECALL_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_OLD_LABELS_RECALL_FIELD_NUMBER: _ClassVar[int]
    LOSS_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    LOSS_BOUND_FIELD_NUMBER: _ClassVar[int]
    label: str
    holdout_images: int
    champion_recall: float
    challenger_recall: float
    is_new: bool
    p_value: float
    challenger_old_labels_recall: float
    loss_p_value: float
    loss_bound: float
    def __init__(self, label: _Optional[str] = ..., holdout_images: _Optional[int] = ..., champion_recall: _Optional[float] = ..., challenger_recall: _Optional[float] = ..., is_new: bool = ..., p_value: _Optional[float] = ..., challenger_old_labels_recall: _Optional[float] = ..., loss_p_value: _Optional[float] = ..., loss_bound: _Optional[float] = ...) -> None: ...

class PreviewRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PreviewResponse(_message.Message):
    __slots__ = ("preview",)
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    preview: Preview
    def __init__(self, preview: _Optional[_Union[Preview, _Mapping]] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("name", "champion", "train_images", "holdout_images", "new_images", "not_embedded", "accuracy", "accuracy_low", "accuracy_high", "holdout_accuracy", "classes", "cells", "suspects", "verdict", "remarks", "learning_curve")
    class ClassResult(_message.Message):
        __slots__ = ("label", "images", "precision", "recall", "f1")
        LABEL_FIELD_NUMBER: _ClassVar[int]
        IMAGES_FIELD_NUMBER: _ClassVar[int]
        PRECISION_FIELD_NUMBER: _ClassVar[int]
        RECALL_FIELD_NUMBER: _ClassVar[int]
        F1_FIELD_NUMBER: _ClassVar[int]
        label: str
        images: int
        precision: float
        recall: float
        f1: float
        def __init__(self, label: _Optional[str] = ..., images: _Optional[int] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ..., f1: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    TRAIN_IMAGES_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NEW_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NOT_EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_LOW_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_HIGH_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_CURVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    champion: int
    train_images: int
    holdout_images: int
    new_images: int
    not_embedded: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    holdout_accuracy: float
    classes: _containers.RepeatedCompositeFieldContainer[Preview.ClassResult]
    cells: _containers.RepeatedCompositeFieldContainer[_reports_pb2.ConfusionCell]
    suspects: _containers.RepeatedCompositeFieldContainer[SuspectLabel]
    verdict: Verdict
    remarks: _containers.RepeatedScalarFieldContainer[str]
    learning_curve: _examples_pb2.LearningCurve
    def __init__(self, name: _Optional[str] = ..., champion: _Optional[int] = ..., train_images: _Optional[int] = ..., holdout_images: _Optional[int] = ..., new_images: _Optional[int] = ..., not_embedded: _Optional[int] = ..., accuracy: _Optional[float] = ..., accuracy_low: _Optional[float] = ..., accuracy_high: _Optional[float] = ..., holdout_accuracy: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[Preview.ClassResult, _Mapping]]] = ..., cells: _Optional[_Iterable[_Union[_reports_pb2.ConfusionCell, _Mapping]]] = ..., suspects: _Optional[_Iterable[_Union[SuspectLabel, _Mapping]]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., remarks: _Optional[_Iterable[str]] = ..., learning_curve: _Optional[_Union[_examples_pb2.LearningCurve, _Mapping]] = ...) -> None: ...
