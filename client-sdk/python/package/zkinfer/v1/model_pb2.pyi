import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from zkinfer.v1 import progress_pb2 as _progress_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("name", "display_name", "labels", "source_artifact", "calibration_artifact", "quantization", "weights_visibility", "parameter_set", "state", "progress", "failure", "registered", "create_time", "ready_time", "last_sequence", "etag", "trace_parent")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Model.State]
        STATE_COMPILING: _ClassVar[Model.State]
        STATE_READY: _ClassVar[Model.State]
        STATE_FAILED: _ClassVar[Model.State]
        STATE_RETIRED: _ClassVar[Model.State]
    STATE_UNSPECIFIED: Model.State
    STATE_COMPILING: Model.State
    STATE_READY: Model.State
    STATE_FAILED: Model.State
    STATE_RETIRED: Model.State
    class Visibility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VISIBILITY_UNSPECIFIED: _ClassVar[Model.Visibility]
        VISIBILITY_PRIVATE: _ClassVar[Model.Visibility]
        VISIBILITY_PUBLIC: _ClassVar[Model.Visibility]
    VISIBILITY_UNSPECIFIED: Model.Visibility
    VISIBILITY_PRIVATE: Model.Visibility
    VISIBILITY_PUBLIC: Model.Visibility
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_SET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    TRACE_PARENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    source_artifact: str
    calibration_artifact: str
    quantization: QuantizationOptions
    weights_visibility: Model.Visibility
    parameter_set: str
    state: Model.State
    progress: _progress_pb2.Progress
    failure: _progress_pb2.Failure
    registered: RegisteredModel
    create_time: _timestamp_pb2.Timestamp
    ready_time: _timestamp_pb2.Timestamp
    last_sequence: int
    etag: str
    trace_parent: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., source_artifact: _Optional[str] = ..., calibration_artifact: _Optional[str] = ..., quantization: _Optional[_Union[QuantizationOptions, _Mapping]] = ..., weights_visibility: _Optional[_Union[Model.Visibility, str]] = ..., parameter_set: _Optional[str] = ..., state: _Optional[_Union[Model.State, str]] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., failure: _Optional[_Union[_progress_pb2.Failure, _Mapping]] = ..., registered: _Optional[_Union[RegisteredModel, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_sequence: _Optional[int] = ..., etag: _Optional[str] = ..., trace_parent: _Optional[str] = ...) -> None: ...

class QuantizationOptions(_message.Message):
    __slots__ = ("granularity", "calibration", "percentile")
    class Granularity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GRANULARITY_UNSPECIFIED: _ClassVar[QuantizationOptions.Granularity]
        GRANULARITY_PER_TENSOR: _ClassVar[QuantizationOptions.Granularity]
        GRANULARITY_PER_CHANNEL: _ClassVar[QuantizationOptions.Granularity]
    GRANULARITY_UNSPECIFIED: QuantizationOptions.Granularity
    GRANULARITY_PER_TENSOR: QuantizationOptions.Granularity
    GRANULARITY_PER_CHANNEL: QuantizationOptions.Granularity
    class Calibration(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CALIBRATION_UNSPECIFIED: _ClassVar[QuantizationOptions.Calibration]
        CALIBRATION_MIN_MAX: _ClassVar[QuantizationOptions.Calibration]
        CALIBRATION_PERCENTILE: _ClassVar[QuantizationOptions.Calibration]
    CALIBRATION_UNSPECIFIED: QuantizationOptions.Calibration
    CALIBRATION_MIN_MAX: QuantizationOptions.Calibration
    CALIBRATION_PERCENTILE: QuantizationOptions.Calibration
    GRANULARITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    granularity: QuantizationOptions.Granularity
    calibration: QuantizationOptions.Calibration
    percentile: float
    def __init__(self, granularity: _Optional[_Union[QuantizationOptions.Granularity, str]] = ..., calibration: _Optional[_Union[QuantizationOptions.Calibration, str]] = ..., percentile: _Optional[float] = ...) -> None: ...

class RegisteredModel(_message.Message):
    __slots__ = ("model_commitment", "program_digest", "parameters_id", "verifier_key_artifact", "quantization_report_artifact", "inputs", "outputs", "layer_count", "parameter_count", "stage_times", "unit_cost")
    MODEL_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_ID_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_REPORT_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    STAGE_TIMES_FIELD_NUMBER: _ClassVar[int]
    UNIT_COST_FIELD_NUMBER: _ClassVar[int]
    model_commitment: bytes
    program_digest: bytes
    parameters_id: bytes
    verifier_key_artifact: str
    quantization_report_artifact: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    layer_count: int
    parameter_count: int
    stage_times: _containers.RepeatedCompositeFieldContainer[StageTime]
    unit_cost: CostEstimate
    def __init__(self, model_commitment: _Optional[bytes] = ..., program_digest: _Optional[bytes] = ..., parameters_id: _Optional[bytes] = ..., verifier_key_artifact: _Optional[str] = ..., quantization_report_artifact: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., layer_count: _Optional[int] = ..., parameter_count: _Optional[int] = ..., stage_times: _Optional[_Iterable[_Union[StageTime, _Mapping]]] = ..., unit_cost: _Optional[_Union[CostEstimate, _Mapping]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape", "scales", "zero_point")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    ZERO_POINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    scales: _containers.RepeatedScalarFieldContainer[float]
    zero_point: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., scales: _Optional[_Iterable[float]] = ..., zero_point: _Optional[int] = ...) -> None: ...

class StageTime(_message.Message):
    __slots__ = ("name", "elapsed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    elapsed: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CostEstimate(_message.Message):
    __slots__ = ("wall_time", "peak_host_bytes", "peak_device_bytes", "proof_bytes", "task_count", "layer_count", "multiply_accumulates")
    WALL_TIME_FIELD_NUMBER: _ClassVar[int]
    PEAK_HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_DEVICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROOF_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    MULTIPLY_ACCUMULATES_FIELD_NUMBER: _ClassVar[int]
    wall_time: _duration_pb2.Duration
    peak_host_bytes: int
    peak_device_bytes: int
    proof_bytes: int
    task_count: int
    layer_count: int
    multiply_accumulates: int
    def __init__(self, wall_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., peak_host_bytes: _Optional[int] = ..., peak_device_bytes: _Optional[int] = ..., proof_bytes: _Optional[int] = ..., task_count: _Optional[int] = ..., layer_count: _Optional[int] = ..., multiply_accumulates: _Optional[int] = ...) -> None: ...

class ModelEvent(_message.Message):
    __slots__ = ("sequence", "time", "state", "progress", "snapshot", "failure", "registered", "heartbeat")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    state: Model.State
    progress: _progress_pb2.Progress
    snapshot: Model
    failure: _progress_pb2.Failure
    registered: RegisteredModel
    heartbeat: _progress_pb2.Heartbeat
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[Model.State, str]] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., snapshot: _Optional[_Union[Model, _Mapping]] = ..., failure: _Optional[_Union[_progress_pb2.Failure, _Mapping]] = ..., registered: _Optional[_Union[RegisteredModel, _Mapping]] = ..., heartbeat: _Optional[_Union[_progress_pb2.Heartbeat, _Mapping]] = ...) -> None: ...

class CreateModelRequest(_message.Message):
    __slots__ = ("parent", "model_id", "model", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    model_id: str
    model: Model
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., model_id: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("name", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchModelRequest(_message.Message):
    __slots__ = ("name", "from_sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    from_sequence: int
    def __init__(self, name: _Optional[str] = ..., from_sequence: _Optional[int] = ...) -> None: ...
