"""The client of a proving service."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal

from . import _transfer
from ._connection import Connection, Options, Pem
from ._transfer import Source
from .documents import Context, ContextNonce, Key, Statement
from .errors import VerifyError
from .jobs import BATCH_INLINE_BYTES, INLINE_BYTES, InputPrivacy, Job, JobRequest, Proof, check_batch
from .models import Model
from .progress import JobState, Progress
from .retry import RetryPolicy
from .tensors import Array, npy
from .v1 import model_pb2, proof_pb2, system_pb2
from .verification import Acceptance, Expectation, document_bytes, verify_documents

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


class Client:
    """A client of the service at `http://HOST:PORT` or `https://HOST:PORT`; use it with `with`, or `close` it. Threads may share it.

    `ca`, `cert` and `key` are PEM, as bytes or as a file, for https. Either `api_key` or `token` is sent with each call. `timeout` is in
    seconds, for one attempt at a call; a proof may take longer. Nothing is sent before the first call.
    """

    def __init__(
        self,
        address: str,
        *,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        api_key: str | None = None,
        token: str | None = None,
        timeout: float = 75.0,
        retry: RetryPolicy = RetryPolicy(),
    ) -> None:
        if api_key is not None and token is not None:
            raise ValueError("give api_key or token, not both")
        credential = token if api_key is None else api_key
        self._connection = Connection(
            address, Options(ca=ca, cert=cert, key=key, credential=credential, timeout=timeout, retry=retry)
        )
        self._tenant: str | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Jobs go on."""
        self._connection.close()

    def server_info(self) -> system_pb2.ServerInfo:
        """Facts about the service: version, backend, parameter sets, limits, the caller's tenant."""
        info: system_pb2.ServerInfo = self._connection.call(
            self._connection.system.GetServerInfo, system_pb2.GetServerInfoRequest()
        )
        return info

    def register_model(
        self,
        source: Source,
        *,
        model_id: str,
        calibration: Array | None = None,
        granularity: Granularity = "per_channel",
        percentile: float | None = None,
        weights: Weights = "private",
        parameter_set: str = "",
        labels: Mapping[str, str] | None = None,
        wait: bool = True,
        progress: Callable[[Progress], None] | None = None,
    ) -> Model:
        """Registers an ONNX network, given as bytes or as a file.

        A float network needs `calibration`: inputs in real units, first axis the sample; `granularity` is of its weights' scales, and
        activations are clipped to `percentile` (above 50, at most 100) instead of to their extremes. A quantized network takes none of
        the three. With weights="public" whoever has the network can recompute the model's commitment. Answers the READY model, or with
        wait=False the one that has just been admitted (then `Model.wait`).
        """
        if granularity not in _GRANULARITY:
            raise ValueError(f'granularity is {granularity!r}; say "per_channel" or "per_tensor"')
        if weights not in _VISIBILITY:
            raise ValueError(f'weights is {weights!r}; say "private" or "public"')
        model = model_pb2.Model(
            source_artifact=_transfer.upload(self._connection, source, _transfer.ONNX),
            quantization=_quantization(granularity, percentile),
            weights_visibility=_VISIBILITY[weights],
            parameter_set=parameter_set,
            labels=labels,
        )
        if calibration is not None:
            model.calibration_artifact = _transfer.upload(self._connection, npy(calibration), _transfer.NPY)
        request = model_pb2.CreateModelRequest(model_id=model_id, model=model, request_id=str(uuid.uuid4()))
        created = Model._of(self._connection, self._connection.call(self._connection.models.CreateModel, request))
        return created.wait(progress=progress) if wait else created

    def model(self, model: str) -> Model:
        """The model of an id, or of a full name."""
        request = model_pb2.GetModelRequest(name=self._model_name(model))
        return Model._of(self._connection, self._connection.call(self._connection.models.GetModel, request))

    def list_models(self, *, page_size: int = 0) -> Iterator[Model]:
        """All models of the caller's tenant, newest first; pages are fetched as they are needed."""
        request = model_pb2.ListModelsRequest(page_size=page_size)
        while True:
            page = self._connection.call(self._connection.models.ListModels, request)
            for message in page.models:
                yield Model._of(self._connection, message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def prove(
        self,
        model: Model | str,
        input: Array,
        *,
        input_privacy: InputPrivacy = "public",
        context: Context = None,
        input_salt: bytes | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Proof:
        """Has a proof made, waits for it, and verifies it on this machine: raises VerifyError if the service gave a wrong one.

        Also checked is that the statement is about this input, where the statement shows it or `input_salt` opens it. `timeout` is in
        seconds, for the whole: TimeoutError, and the job goes on. For a job's handle, take `submit`.
        """
        request = JobRequest(model, input, input_privacy, context, input_salt, labels or {})
        proof = self._submit(request).wait(timeout, progress)
        is_checkable = input_privacy == "public" or input_salt is not None
        expectation = Expectation(input=input if is_checkable else None, input_salt=input_salt)
        verify_documents(proof.bytes, proof.statement.bytes, proof.key.bytes, context, Acceptance(), expectation)
        return proof

    def submit(
        self,
        model: Model | str,
        input: Array,
        *,
        input_privacy: InputPrivacy = "public",
        context: Context = None,
        input_salt: bytes | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        deadline: datetime | None = None,
    ) -> Job:
        """Has a proof made, and answers its job at once. The parameters are those of `JobRequest`."""
        return self._submit(JobRequest(model, input, input_privacy, context, input_salt, labels or {}, priority, deadline))

    def _submit(self, request: JobRequest) -> Job:
        message = request._message(self._connection, self._model_name, INLINE_BYTES)
        message.request_id = str(uuid.uuid4())
        return Job._of(self._connection, self._connection.call(self._connection.proofs.CreateJob, message))

    def submit_batch(self, requests: Sequence[JobRequest]) -> list[Job]:
        """Has all these proofs made, or none of them: what is wrong with one refuses all, by its place, such as `requests[3].job.model`."""
        messages = [request._message(self._connection, self._model_name, BATCH_INLINE_BYTES) for request in requests]
        batch = proof_pb2.BatchCreateJobsRequest(requests=messages, request_id=str(uuid.uuid4()))
        answer = self._connection.call(self._connection.proofs.BatchCreateJobs, batch)
        return check_batch(len(messages), [Job._of(self._connection, message) for message in answer.jobs])

    def job(self, name: str) -> Job:
        """The job of a full name."""
        request = proof_pb2.GetJobRequest(name=name)
        return Job._of(self._connection, self._connection.call(self._connection.proofs.GetJob, request))

    def jobs(
        self,
        *,
        model: Model | str | None = None,
        states: Sequence[JobState] = (),
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
    ) -> Iterator[Job]:
        """Jobs, newest first: of one model, in one of some states, with all of some labels. Pages are fetched as they are needed."""
        request = proof_pb2.ListJobsRequest(
            page_size=page_size,
            model="" if model is None else self._model_name(model),
            states=[_JOB_STATES[state] for state in states],
            labels=labels,
        )
        while True:
            page = self._connection.call(self._connection.proofs.ListJobs, request)
            for message in page.jobs:
                yield Job._of(self._connection, message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def estimate(self, model: Model | str) -> model_pb2.CostEstimate:
        """What one proof of a model would cost."""
        request = proof_pb2.EstimateJobRequest(model=self._model_name(model))
        cost: model_pb2.CostEstimate = self._connection.call(self._connection.proofs.EstimateJob, request)
        return cost

    def verify_remote(
        self,
        proof: Proof | bytes,
        statement: Statement | bytes | None = None,
        key: Key | bytes | None = None,
        *,
        model: Model | str | None = None,
        context: Context = None,
    ) -> Statement:
        """Has the service verify; raises VerifyError if it refuses. Statement and key are those of the proof, or with `model` the key is
        that of a model of the service. Whoever does not trust the service takes `zkinfer.verify`.
        """
        proof_bytes, statement_bytes, key_bytes = document_bytes(proof, statement, key, needs_key=model is None)
        request = proof_pb2.VerifyProofRequest(proof_bytes=proof_bytes, statement_bytes=statement_bytes)
        if model is None:
            request.verifier_key_bytes = key_bytes
        else:
            request.model = self._model_name(model)
        answer = self._connection.call(self._connection.proofs.VerifyProof, request)
        if not answer.valid:
            raise VerifyError(answer.reason, answer.message)
        # The service does not know which use the caller has in mind.
        verified, nonce = Statement.from_bytes(statement_bytes), ContextNonce.of(context)
        if verified.context_nonce != nonce:
            raise VerifyError("OTHER_NONCE", "the statement is for another context nonce: the proof was made for another use")
        return verified

    def _model_name(self, model: Model | str) -> str:
        if isinstance(model, Model):
            return model.name
        if "/" in model:
            return model
        if self._tenant is None:
            self._tenant = self.server_info().tenant
        return f"{self._tenant}/models/{model}"


def _quantization(granularity: Granularity, percentile: float | None) -> model_pb2.QuantizationOptions:
    kinds = model_pb2.QuantizationOptions
    return kinds(
        granularity=_GRANULARITY[granularity],
        calibration=kinds.CALIBRATION_MIN_MAX if percentile is None else kinds.CALIBRATION_PERCENTILE,
        percentile=percentile or 0.0,
    )
