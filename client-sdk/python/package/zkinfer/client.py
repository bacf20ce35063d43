"""The client of a proving service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType

from . import _requests, _transfer
from ._connection import Connection, Options, Pem, credential_of
from ._requests import Granularity, Registration, RemoteVerification, Weights
from ._transfer import Source
from .documents import Context, Key, Statement
from .jobs import BATCH_INLINE_BYTES, INLINE_BYTES, InputPrivacy, Job, JobRequest, Proof
from .models import Model, ModelFacts
from .progress import JobState, Progress
from .retry import RetryPolicy
from .tensors import Array, npy
from .v1 import model_pb2, proof_pb2, system_pb2
from .verification import verify_answer


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
        credential = credential_of(api_key, token)
        options = Options(ca=ca, cert=cert, key=key, credential=credential, timeout=timeout, retry=retry)
        self._connection = Connection(address, options)
        self._tenant: str | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Jobs go on."""
        self._connection.close()

    def server_info(self) -> system_pb2.ServerInfo:
        """Facts about the service: version, backend, parameter sets, limits, the caller's tenant."""
        info: system_pb2.ServerInfo = self._connection.call(self._connection.system.GetServerInfo, system_pb2.GetServerInfoRequest())
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
        registration = Registration(model_id, granularity, percentile, weights, parameter_set, labels or {})
        source_artifact = _transfer.upload(self._connection, source, _transfer.ONNX)
        inputs = "" if calibration is None else _transfer.upload(self._connection, npy(calibration), _transfer.NPY)
        request = registration.message(source_artifact, inputs)
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
        model: ModelFacts | str,
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

        Also checked is that the statement is about this input, where the statement shows it or `input_salt` opens it, and about this
        model if it is given as a READY `Model` rather than by its name. `timeout` is how many seconds the proof is waited for:
        TimeoutError, and the job goes on. For a job's handle, take `submit`.
        """
        request = JobRequest(model, input, input_privacy, context, input_salt, labels or {})
        proof = self._submit(request).wait(timeout, progress)
        verify_answer(proof, request)
        return proof

    def submit(
        self,
        model: ModelFacts | str,
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
        message = self._message(request, INLINE_BYTES)
        message.request_id = _requests.fresh_id()
        return Job._of(self._connection, self._connection.call(self._connection.proofs.CreateJob, message))

    def _message(self, request: JobRequest, inline_bytes: int) -> proof_pb2.CreateJobRequest:
        message, upload = request._message(inline_bytes)
        message.job.model = self._model_name(request.model)
        if upload is not None:
            message.job.input.artifact = _transfer.upload(self._connection, upload.data, upload.media_type)
        return message

    def submit_batch(self, requests: Sequence[JobRequest]) -> list[Job]:
        """Has all these proofs made, or none of them: what is wrong with one refuses all, by its place, such as `requests[3].job.model`."""
        messages = [self._message(request, BATCH_INLINE_BYTES) for request in requests]
        batch = proof_pb2.BatchCreateJobsRequest(requests=messages, request_id=_requests.fresh_id())
        answer = self._connection.call(self._connection.proofs.BatchCreateJobs, batch)
        return [Job._of(self._connection, message) for message in _requests.check_batch(len(messages), answer)]

    def job(self, name: str) -> Job:
        """The job of a full name."""
        request = proof_pb2.GetJobRequest(name=name)
        return Job._of(self._connection, self._connection.call(self._connection.proofs.GetJob, request))

    def jobs(
        self,
        *,
        model: ModelFacts | str | None = None,
        states: Sequence[JobState] = (),
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
    ) -> Iterator[Job]:
        """Jobs, newest first: of one model, in one of some states, with all of some labels. Pages are fetched as they are needed."""
        name = "" if model is None else self._model_name(model)
        request = _requests.list_jobs(name, states, labels, page_size)
        while True:
            page = self._connection.call(self._connection.proofs.ListJobs, request)
            for message in page.jobs:
                yield Job._of(self._connection, message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def estimate(self, model: ModelFacts | str) -> model_pb2.CostEstimate:
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
        model: ModelFacts | str | None = None,
        context: Context = None,
    ) -> Statement:
        """Has the service verify; raises VerifyError if it refuses. Statement and key are those of the proof, or with `model` the key is
        that of a model of the service. Whoever does not trust the service takes `zkinfer.verify`.
        """
        name = None if model is None else self._model_name(model)
        verification = RemoteVerification.of(proof, statement, key, name)
        answer = self._connection.call(self._connection.proofs.VerifyProof, verification.request)
        return verification.check(answer, context)

    def _model_name(self, model: ModelFacts | str) -> str:
        if isinstance(model, ModelFacts):
            return model.name
        if "/" in model:
            return model
        if self._tenant is None:
            self._tenant = self.server_info().tenant
        return f"{self._tenant}/models/{model}"
