"""Models of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import _transfer, _watch
from ._blocking import Connection
from ._connection import Services
from .documents import Key
from .errors import EndedError
from .progress import Failure, ModelState, Progress, moment
from .v1 import model_pb2


@dataclass(frozen=True)
class TensorSpec:
    """A tensor at the edge of the network. real = (integer - zero_point) * scale, one scale or one for each index of the last axis."""

    name: str
    # "uint8" for inputs, "int8" or "int64" for outputs.
    dtype: str
    # Without the batch axis.
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_point: int

    @classmethod
    def _of(cls, message: model_pb2.TensorSpec) -> TensorSpec:
        return cls(message.name, message.dtype, tuple(message.shape), tuple(message.scales), message.zero_point)


@dataclass(frozen=True)
class Registered:
    """What registration produced."""

    model_commitment: bytes
    program_digest: bytes
    parameters_id: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layer_count: int
    parameter_count: int
    _key_artifact: str = field(repr=False)
    _report_artifact: str = field(repr=False)

    @classmethod
    def _of(cls, message: model_pb2.RegisteredModel) -> Registered:
        return cls(
            model_commitment=message.model_commitment,
            program_digest=message.program_digest,
            parameters_id=message.parameters_id,
            inputs=tuple(TensorSpec._of(each) for each in message.inputs),
            outputs=tuple(TensorSpec._of(each) for each in message.outputs),
            layer_count=message.layer_count,
            parameter_count=message.parameter_count,
            _key_artifact=message.verifier_key_artifact,
            _report_artifact=message.quantization_report_artifact,
        )


@dataclass(frozen=True)
class ModelEvent:
    """Something that happened to a model. The first of a watch tells how things are; then sequences have no gaps."""

    sequence: int
    time: datetime
    state: ModelState
    progress: Progress | None
    # With FAILED.
    failure: Failure | None

    @classmethod
    def _of(cls, message: model_pb2.ModelEvent) -> ModelEvent:
        return cls(
            sequence=message.sequence,
            time=moment(message.time),
            state=ModelState(message.state),
            progress=Progress._of(message.progress) if message.HasField("progress") else None,
            failure=Failure._of(message.failure) if message.HasField("failure") else None,
        )


@dataclass(frozen=True)
class ModelFacts:
    """What the service says about a model, as it was when it answered."""

    # `tenants/{tenant}/models/{model id}`.
    name: str
    state: ModelState
    display_name: str
    labels: Mapping[str, str]
    parameter_set: str
    progress: Progress | None
    # Set when FAILED.
    failure: Failure | None
    # Set when READY.
    registered: Registered | None
    create_time: datetime

    @staticmethod
    def _fields(message: model_pb2.Model) -> dict[str, Any]:
        return {
            "name": message.name,
            "state": ModelState(message.state),
            "display_name": message.display_name,
            "labels": dict(message.labels),
            "parameter_set": message.parameter_set,
            "progress": Progress._of(message.progress) if message.HasField("progress") else None,
            "failure": Failure._of(message.failure) if message.HasField("failure") else None,
            "registered": Registered._of(message.registered) if message.HasField("registered") else None,
            "create_time": moment(message.create_time),
        }

    @property
    def model_id(self) -> str:
        """The last part of the name."""
        return self.name.rsplit("/", 1)[-1]

    def _ready(self) -> Registered:
        """What registration produced; raises EndedError for a model that is not READY."""
        if self.registered is None:
            raise EndedError(self.name, self.state.name, self.failure)
        return self.registered

    def _watched(self, services: Services) -> _watch.Subject:
        return _watch.Sequence(
            name=self.name,
            method=services.models.WatchModel,
            request_from=lambda sequence: model_pb2.WatchModelRequest(name=self.name, from_sequence=sequence),
            is_final=lambda state: ModelState(state).is_final,
        )


@dataclass(frozen=True)
class Model(ModelFacts):
    """A network that proofs can be made for, as it was when the service answered."""

    _connection: Connection = field(repr=False, compare=False)

    @classmethod
    def _of(cls, connection: Connection, message: model_pb2.Model) -> Model:
        return cls(**cls._fields(message), _connection=connection)

    def refresh(self) -> Model:
        """The model as it is now."""
        request = model_pb2.GetModelRequest(name=self.name)
        return Model._of(self._connection, self._connection.call(self._connection.models.GetModel, request))

    def watch(self, timeout: float | None = None) -> Iterator[ModelEvent]:
        """What happens to the model from now on, until it is READY or FAILED; TimeoutError after so many seconds."""
        watched = self._watched(self._connection)
        return map(ModelEvent._of, self._connection.items(_watch.watch, watched, _watch.monotonic_deadline(timeout)))

    def wait(self, timeout: float | None = None, progress: Callable[[Progress], None] | None = None) -> Model:
        """Waits until the model is READY and answers it so; raises EndedError if it failed, TimeoutError after so many seconds."""
        for event in self.watch(timeout):
            if progress is not None and event.progress is not None:
                progress(event.progress)
        model = self.refresh()
        model._ready()
        return model

    def delete(self) -> None:
        """Deletes the model with what the service holds of its weights; no error if it is gone. Its proofs stay, and verify with its key.

        PreconditionError while it is being registered, and while one of its jobs is not over.
        """
        request = model_pb2.DeleteModelRequest(name=self.name, allow_missing=True)
        self._connection.call(self._connection.models.DeleteModel, request)

    def key(self) -> Key:
        """The verifier key. Give it to whoever is to check proofs."""
        return Key.from_bytes(self._connection.run(_transfer.download, self._current()._key_artifact))

    def quantization_report(self) -> bytes:
        """JSON, per layer: scales, saturation, signal to noise, accumulator bounds."""
        return self._connection.run(_transfer.download, self._current()._report_artifact)

    def _current(self) -> Registered:
        return (self if self.registered is not None else self.refresh())._ready()
