import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "backend", "backend_reason", "parameter_sets", "tenant", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    BACKEND_REASON_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_SETS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    backend: str
    backend_reason: str
    parameter_sets: _containers.RepeatedScalarFieldContainer[str]
    tenant: str
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., backend: _Optional[str] = ..., backend_reason: _Optional[str] = ..., parameter_sets: _Optional[_Iterable[str]] = ..., tenant: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_chunk_bytes", "max_model_bytes", "max_input_bytes", "max_inline_input_bytes", "max_page_size", "max_labels", "max_queued_jobs", "max_batch_jobs", "max_label_key_bytes", "max_label_value_bytes", "max_text_bytes", "max_proof_bytes", "max_estimate_bytes", "max_webhook_url_bytes", "max_webhooks", "max_uploads", "max_unfinished_upload_bytes", "max_creates_per_second", "max_creates_at_once", "max_calls", "max_watchers", "max_downloads", "max_computations", "max_calls_per_connection", "max_call_time", "max_wait", "max_upload_pause", "heartbeat", "request_id_time")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_INLINE_INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_LABELS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_LABEL_KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_LABEL_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PROOF_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ESTIMATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_WEBHOOK_URL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_WEBHOOKS_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOADS_FIELD_NUMBER: _ClassVar[int]
    MAX_UNFINISHED_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CREATES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MAX_CREATES_AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_WATCHERS_FIELD_NUMBER: _ClassVar[int]
    MAX_DOWNLOADS_FIELD_NUMBER: _ClassVar[int]
    MAX_COMPUTATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_PER_CONNECTION_FIELD_NUMBER: _ClassVar[int]
    MAX_CALL_TIME_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_PAUSE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_TIME_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_chunk_bytes: int
    max_model_bytes: int
    max_input_bytes: int
    max_inline_input_bytes: int
    max_page_size: int
    max_labels: int
    max_queued_jobs: int
    max_batch_jobs: int
    max_label_key_bytes: int
    max_label_value_bytes: int
    max_text_bytes: int
    max_proof_bytes: int
    max_estimate_bytes: int
    max_webhook_url_bytes: int
    max_webhooks: int
    max_uploads: int
    max_unfinished_upload_bytes: int
    max_creates_per_second: int
    max_creates_at_once: int
    max_calls: int
    max_watchers: int
    max_downloads: int
    max_computations: int
    max_calls_per_connection: int
    max_call_time: _duration_pb2.Duration
    max_wait: _duration_pb2.Duration
    max_upload_pause: _duration_pb2.Duration
    heartbeat: _duration_pb2.Duration
    request_id_time: _duration_pb2.Duration
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., max_model_bytes: _Optional[int] = ..., max_input_bytes: _Optional[int] = ..., max_inline_input_bytes: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_labels: _Optional[int] = ..., max_queued_jobs: _Optional[int] = ..., max_batch_jobs: _Optional[int] = ..., max_label_key_bytes: _Optional[int] = ..., max_label_value_bytes: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., max_proof_bytes: _Optional[int] = ..., max_estimate_bytes: _Optional[int] = ..., max_webhook_url_bytes: _Optional[int] = ..., max_webhooks: _Optional[int] = ..., max_uploads: _Optional[int] = ..., max_unfinished_upload_bytes: _Optional[int] = ..., max_creates_per_second: _Optional[int] = ..., max_creates_at_once: _Optional[int] = ..., max_calls: _Optional[int] = ..., max_watchers: _Optional[int] = ..., max_downloads: _Optional[int] = ..., max_computations: _Optional[int] = ..., max_calls_per_connection: _Optional[int] = ..., max_call_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_upload_pause: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
