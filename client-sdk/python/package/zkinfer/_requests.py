"""Requests as they travel."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .progress import JobState
from .v1 import model_pb2, proof_pb2

Granularity = Literal["per_channel", "per_tensor"]
Weights = Literal["private", "public"]

_GRANULARITY = {
    "per_channel": model_pb2.QuantizationOptions.GRANULARITY_PER_CHANNEL,
    "per_tensor": model_pb2.QuantizationOptions.GRANULARITY_PER_TENSOR,
}
_VISIBILITY = {"private": model_pb2.Model.VISIBILITY_PRIVATE, "public": model_pb2.Model.VISIBILITY_PUBLIC}
_JOB_STATES: dict[JobState, proof_pb2.Job.State] = {
    state: getattr(proof_pb2.Job, f"STATE_{state.name}") for state in JobState if state is not JobState.UNKNOWN
}


def fresh_id() -> str:
    """A request id: the same id with the same request gives the same answer."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Registration:
    """How a network is to be registered; raises ValueError for a choice that there is not."""

    model_id: str
    granularity: Granularity = "per_channel"
    percentile: float | None = None
    weights: Weights = "private"
    parameter_set: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.granularity not in _GRANULARITY:
            raise ValueError(f'granularity is {self.granularity!r}; say "per_channel" or "per_tensor"')
        if self.weights not in _VISIBILITY:
            raise ValueError(f'weights is {self.weights!r}; say "private" or "public"')

    def message(self, source_artifact: str, calibration_artifact: str) -> model_pb2.CreateModelRequest:
        """The request, once both artifacts are uploaded; an empty name: there is no calibration."""
        kinds = model_pb2.QuantizationOptions
        quantization = kinds(
            granularity=_GRANULARITY[self.granularity],
            calibration=kinds.CALIBRATION_MIN_MAX if self.percentile is None else kinds.CALIBRATION_PERCENTILE,
            percentile=self.percentile or 0.0,
        )
        model = model_pb2.Model(
            source_artifact=source_artifact,
            calibration_artifact=calibration_artifact,
            quantization=quantization,
            weights_visibility=_VISIBILITY[self.weights],
            parameter_set=self.parameter_set,
            labels=self.labels,
        )
        return model_pb2.CreateModelRequest(model_id=self.model_id, model=model, request_id=fresh_id())


def list_jobs(
    *, states: Sequence[JobState] = (), labels: Mapping[str, str] | None = None, batch: str = "", page_size: int = 0
) -> proof_pb2.ListJobsRequest:
    """The request for the first page, of all models; an empty name: of all batches, and of none."""
    known = [_JOB_STATES[state] for state in states]
    return proof_pb2.ListJobsRequest(page_size=page_size, states=known, labels=labels, batch=batch)
