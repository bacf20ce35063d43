"""Requests as they travel, for the client and its asyncio variant."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .documents import Context, ContextNonce, Key, Statement
from .errors import AnswerError, VerifyError
from .jobs import Proof
from .progress import JobState
from .v1 import model_pb2, proof_pb2
from .verification import document_bytes

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


def list_jobs(model_name: str, states: Sequence[JobState], labels: Mapping[str, str] | None, page_size: int) -> proof_pb2.ListJobsRequest:
    """The request for the first page; an empty name: of all models."""
    known = [_JOB_STATES[state] for state in states]
    return proof_pb2.ListJobsRequest(page_size=page_size, model=model_name, states=known, labels=labels)


def check_batch(n_requests: int, answer: proof_pb2.BatchCreateJobsResponse) -> list[proof_pb2.Job]:
    """The jobs of a batch, one for each request."""
    if len(answer.jobs) != n_requests:
        raise AnswerError(f"the service answered {len(answer.jobs)} jobs for {n_requests} requests")
    return list(answer.jobs)


@dataclass(frozen=True)
class RemoteVerification:
    """A verification by the service."""

    request: proof_pb2.VerifyProofRequest

    @classmethod
    def of(
        cls, proof: Proof | bytes, statement: Statement | bytes | None, key: Key | bytes | None, model_name: str | None
    ) -> RemoteVerification:
        """With a model's name, its key is taken."""
        proof_bytes, statement_bytes, key_bytes = document_bytes(proof, statement, key, needs_key=model_name is None)
        request = proof_pb2.VerifyProofRequest(proof_bytes=proof_bytes, statement_bytes=statement_bytes)
        if model_name is None:
            request.verifier_key_bytes = key_bytes
        else:
            request.model = model_name
        return cls(request)

    def check(self, answer: proof_pb2.VerifyProofResponse, context: Context) -> Statement:
        """The statement, accepted; raises VerifyError if it is not."""
        if not answer.valid:
            raise VerifyError(answer.reason, answer.message)
        # The service does not know which use the caller has in mind.
        statement = Statement.from_bytes(self.request.statement_bytes)
        if statement.context_nonce != ContextNonce.of(context):
            raise VerifyError("OTHER_NONCE", "the statement is for another context nonce: the proof was made for another use")
        return statement
