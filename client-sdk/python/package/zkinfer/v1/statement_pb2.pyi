from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Statement(_message.Message):
    __slots__ = ("version", "parameters_id", "program_digest", "model_commitment", "input_commitment", "output_values", "output_commitment", "predicate", "context_nonce")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    INPUT_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    PREDICATE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_NONCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    parameters_id: bytes
    program_digest: bytes
    model_commitment: bytes
    input_commitment: bytes
    output_values: OutputValues
    output_commitment: bytes
    predicate: bytes
    context_nonce: bytes
    def __init__(self, version: _Optional[int] = ..., parameters_id: _Optional[bytes] = ..., program_digest: _Optional[bytes] = ..., model_commitment: _Optional[bytes] = ..., input_commitment: _Optional[bytes] = ..., output_values: _Optional[_Union[OutputValues, _Mapping]] = ..., output_commitment: _Optional[bytes] = ..., predicate: _Optional[bytes] = ..., context_nonce: _Optional[bytes] = ...) -> None: ...

class OutputValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...
