"""The client of a proving service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType

from . import _operations, _requests
from ._blocking import Connection
from ._connection import Options, Pem, credential_of
from ._requests import Granularity, Registration, Weights
from ._transfer import Source
from .batches import Batch, BatchFacts
from .documents import Context, Key, Statement
from .jobs import InputPrivacy, Job, JobRequest, Proof
from .models import Model, ModelFacts
from .progress import JobState, Progress
from .retry import RetryPolicy
from .tensors import Array
from .v1 import model_pb2, proof_pb2, system_pb2
from .verification import verify_answer
from .webhooks import CreatedWebhook, Webhook


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

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Jobs go on."""
        self._connection.close()

    def server_info(self) -> system_pb2.ServerInfo:
        """Facts about the service: version, backend, parameter sets, limits, the caller's tenant."""
        return self._connection.run(_operations.server_info)

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
        message = self._connection.run(_operations.register_model, registration, source, calibration)
        created = Model._of(self._connection, message)
        return created.wait(progress=progress) if wait else created

    def model(self, model: str) -> Model:
        """The model of an id, or of a full name."""
        return Model._of(self._connection, self._connection.run(_operations.get_model, model))

    def list_models(self, *, page_size: int = 0) -> Iterator[Model]:
        """All models of the caller's tenant, newest first; pages are fetched as they are needed."""
        messages = self._connection.items(_operations.list_models, page_size)
        return (Model._of(self._connection, message) for message in messages)

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
        return Job._of(self._connection, self._connection.run(_operations.create_job, request))

    def submit_batch(self, requests: Sequence[JobRequest]) -> list[Job]:
        """Has all these proofs made, or none of them: what is wrong with one refuses all, by its place, such as `requests[3].job.model`.

        To follow them together: `client.batch(jobs[0].batch)`.
        """
        messages = self._connection.run(_operations.create_jobs, requests)
        return [Job._of(self._connection, message) for message in messages]

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
        batch: BatchFacts | str = "",
        page_size: int = 0,
    ) -> Iterator[Job]:
        """Jobs, newest first: of one model, in one of some states, with all of some labels, of one batch. Pages are fetched as needed."""
        name = batch.name if isinstance(batch, BatchFacts) else batch
        request = _requests.list_jobs(states=states, labels=labels, batch=name, page_size=page_size)
        messages = self._connection.items(_operations.list_jobs, model, request)
        return (Job._of(self._connection, message) for message in messages)

    def batch(self, name: str) -> Batch:
        """The batch of a full name, such as `Job.batch`."""
        return Batch._of(self._connection, self._connection.run(_operations.get_batch, name))

    def create_webhook(self, url: str) -> CreatedWebhook:
        """Has a URL called when a job of the tenant ends; answers also the secret that `verify_webhook` takes.

        Not repeated when the answer is lost: list and delete what was made.
        """
        return self._connection.run(_operations.create_webhook, url)

    def webhooks(self) -> list[Webhook]:
        """The tenant's webhooks, oldest first."""
        return [Webhook._of(message) for message in self._connection.items(_operations.list_webhooks)]

    def delete_webhook(self, webhook: Webhook | str) -> None:
        """Deletes a webhook, or that of a full name, and what was still to be sent to it."""
        self._connection.run(_operations.delete_webhook, webhook)

    def estimate(self, model: ModelFacts | str) -> model_pb2.CostEstimate:
        """What one proof of a model would cost."""
        return self._connection.run(_operations.estimate, model)

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
        return self._connection.run(_operations.verify_remote, proof, statement, key, model, context)
