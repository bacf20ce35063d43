"""The client for asyncio: as `zkinfer.Client`, with `await`, `async with` and `async for`.

    async with zkinfer.aio.AsyncClient("http://127.0.0.1:50061") as client:
        jobs = await client.submit_batch([zkinfer.JobRequest("digits", image) for image in images])
        proofs = await asyncio.gather(*(job.wait() for job in jobs))

Verification is a computation, not a wait: `await asyncio.to_thread(zkinfer.verify, proof)` keeps the event loop free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

from . import _aio, _operations, _requests, _transfer, _watch
from ._connection import Options, Pem, credential_of
from ._requests import Granularity, Registration, Weights
from ._transfer import Source
from .batches import BatchEvent, BatchFacts
from .documents import Context, Key, Statement
from .jobs import InputPrivacy, JobEvent, JobFacts, JobRequest, Proof
from .models import ModelEvent, ModelFacts, Registered
from .progress import JobState, Progress
from .retry import RetryPolicy
from .tensors import Array
from .v1 import model_pb2, proof_pb2, system_pb2
from .verification import verify_answer
from .webhooks import CreatedWebhook, Webhook


@dataclass(frozen=True)
class AsyncModel(ModelFacts):
    """A network that proofs can be made for, as it was when the service answered; as `zkinfer.Model`."""

    _connection: _aio.Connection = field(repr=False, compare=False)

    @classmethod
    def _of(cls, connection: _aio.Connection, message: model_pb2.Model) -> AsyncModel:
        return cls(**cls._fields(message), _connection=connection)

    async def refresh(self) -> AsyncModel:
        """The model as it is now."""
        request = model_pb2.GetModelRequest(name=self.name)
        return AsyncModel._of(self._connection, await self._connection.call(self._connection.models.GetModel, request))

    async def watch(self, timeout: float | None = None) -> AsyncIterator[ModelEvent]:
        """What happens to the model from now on, until it is READY or FAILED; TimeoutError after so many seconds."""
        watched = self._watched(self._connection)
        async for event in self._connection.items(_watch.watch, watched, _watch.monotonic_deadline(timeout)):
            yield ModelEvent._of(event)

    async def wait(self, timeout: float | None = None, progress: Callable[[Progress], None] | None = None) -> AsyncModel:
        """Waits until the model is READY and answers it so; raises EndedError if it failed, TimeoutError after so many seconds."""
        async for event in self.watch(timeout):
            if progress is not None and event.progress is not None:
                progress(event.progress)
        model = await self.refresh()
        model._ready()
        return model

    async def delete(self) -> None:
        """Deletes the model with what the service holds of its weights; as `zkinfer.Model.delete`."""
        request = model_pb2.DeleteModelRequest(name=self.name, allow_missing=True)
        await self._connection.call(self._connection.models.DeleteModel, request)

    async def key(self) -> Key:
        """The verifier key. Give it to whoever is to check proofs."""
        return Key.from_bytes(await self._connection.run(_transfer.download, (await self._current())._key_artifact))

    async def quantization_report(self) -> bytes:
        """JSON, per layer: scales, saturation, signal to noise, accumulator bounds."""
        return await self._connection.run(_transfer.download, (await self._current())._report_artifact)

    async def _current(self) -> Registered:
        return (self if self.registered is not None else await self.refresh())._ready()


@dataclass(frozen=True)
class AsyncJob(JobFacts):
    """A proof being made, as it was when the service answered; as `zkinfer.Job`."""

    _connection: _aio.Connection = field(repr=False, compare=False)

    @classmethod
    def _of(cls, connection: _aio.Connection, message: proof_pb2.Job) -> AsyncJob:
        return cls(**cls._fields(message), _connection=connection)

    async def refresh(self) -> AsyncJob:
        """The job as it is now."""
        request = proof_pb2.GetJobRequest(name=self.name)
        return AsyncJob._of(self._connection, await self._connection.call(self._connection.proofs.GetJob, request))

    async def cancel(self, reason: str = "") -> AsyncJob:
        """Tells the service that the proof is not wanted any more: CANCELLED, or CANCELLING while its work stops."""
        request = proof_pb2.CancelJobRequest(name=self.name, reason=reason)
        return AsyncJob._of(self._connection, await self._connection.call(self._connection.proofs.CancelJob, request))

    async def delete(self) -> None:
        """Deletes the job with its proof; no error if it is gone. PreconditionError before it has ended and webhooks have heard of that."""
        request = proof_pb2.DeleteJobRequest(name=self.name, allow_missing=True)
        await self._connection.call(self._connection.proofs.DeleteJob, request)

    async def watch(self, timeout: float | None = None) -> AsyncIterator[JobEvent]:
        """What happens to the job from now on, until its final state; TimeoutError after so many seconds."""
        watched = self._watched(self._connection)
        async for event in self._connection.items(_watch.watch, watched, _watch.monotonic_deadline(timeout)):
            yield JobEvent._of(event)

    async def wait(self, timeout: float | None = None, progress: Callable[[Progress], None] | None = None) -> Proof:
        """Waits for the proof and downloads it; raises EndedError if there is none, TimeoutError after so many seconds."""
        async for event in self.watch(timeout):
            if progress is not None and event.progress is not None:
                progress(event.progress)
        return await (await self.refresh()).proof()

    async def proof(self) -> Proof:
        """Downloads the proof of a job that has SUCCEEDED; raises EndedError for another."""
        return await self._connection.run(self._download)


@dataclass(frozen=True)
class AsyncBatch(BatchFacts):
    """Jobs that were admitted together, as they were when the service answered; as `zkinfer.Batch`."""

    _connection: _aio.Connection = field(repr=False, compare=False)

    @classmethod
    def _of(cls, connection: _aio.Connection, message: proof_pb2.Batch) -> AsyncBatch:
        return cls(**cls._fields(message), _connection=connection)

    async def refresh(self) -> AsyncBatch:
        """The batch as it is now."""
        return AsyncBatch._of(self._connection, await self._connection.run(_operations.get_batch, self.name))

    async def jobs(self, states: Sequence[JobState] = ()) -> AsyncIterator[AsyncJob]:
        """Its jobs, newest first, or those in one of some states; to cancel the batch, cancel each."""
        async for message in self._connection.items(_operations.list_jobs, None, self._listing(states)):
            yield AsyncJob._of(self._connection, message)

    async def watch(self, timeout: float | None = None) -> AsyncIterator[BatchEvent]:
        """How far the batch is whenever that has changed, until all its jobs have ended; TimeoutError after so many seconds."""
        watched = self._watched(self._connection)
        async for event in self._connection.items(_watch.watch, watched, _watch.monotonic_deadline(timeout)):
            yield BatchEvent._of(event)

    async def wait(self, timeout: float | None = None, progress: Callable[[BatchEvent], None] | None = None) -> AsyncBatch:
        """Waits until all jobs have ended, well or not, and answers the batch so; TimeoutError after so many seconds."""
        async for event in self.watch(timeout):
            if progress is not None:
                progress(event)
        return await self.refresh()


class AsyncClient:
    """A client of the service at `http://HOST:PORT` or `https://HOST:PORT`; the parameters are those of `zkinfer.Client`.

    Made inside a running event loop; use it with `async with`, or `close` it.
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
        self._connection = _aio.Connection(address, options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Jobs go on."""
        await self._connection.close()

    async def server_info(self) -> system_pb2.ServerInfo:
        """Facts about the service: version, backend, parameter sets, limits, the caller's tenant."""
        return await self._connection.run(_operations.server_info)

    async def register_model(
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
    ) -> AsyncModel:
        """Registers an ONNX network, given as bytes or as a file; the parameters are those of `zkinfer.Client.register_model`."""
        registration = Registration(model_id, granularity, percentile, weights, parameter_set, labels or {})
        message = await self._connection.run(_operations.register_model, registration, source, calibration)
        created = AsyncModel._of(self._connection, message)
        return await created.wait(progress=progress) if wait else created

    async def model(self, model: str) -> AsyncModel:
        """The model of an id, or of a full name."""
        return AsyncModel._of(self._connection, await self._connection.run(_operations.get_model, model))

    async def list_models(self, *, page_size: int = 0) -> AsyncIterator[AsyncModel]:
        """All models of the caller's tenant, newest first; pages are fetched as they are needed."""
        async for message in self._connection.items(_operations.list_models, page_size):
            yield AsyncModel._of(self._connection, message)

    async def prove(
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
        """Has a proof made, waits for it, and verifies it on this machine; as `zkinfer.Client.prove`."""
        request = JobRequest(model, input, input_privacy, context, input_salt, labels or {})
        proof = await (await self._submit(request)).wait(timeout, progress)
        await asyncio.to_thread(verify_answer, proof, request)
        return proof

    async def submit(
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
    ) -> AsyncJob:
        """Has a proof made, and answers its job at once. The parameters are those of `JobRequest`."""
        request = JobRequest(model, input, input_privacy, context, input_salt, labels or {}, priority, deadline)
        return await self._submit(request)

    async def _submit(self, request: JobRequest) -> AsyncJob:
        return AsyncJob._of(self._connection, await self._connection.run(_operations.create_job, request))

    async def submit_batch(self, requests: Sequence[JobRequest]) -> list[AsyncJob]:
        """Has all these proofs made, or none of them; as `zkinfer.Client.submit_batch`."""
        messages = await self._connection.run(_operations.create_jobs, requests)
        return [AsyncJob._of(self._connection, message) for message in messages]

    async def job(self, name: str) -> AsyncJob:
        """The job of a full name."""
        request = proof_pb2.GetJobRequest(name=name)
        return AsyncJob._of(self._connection, await self._connection.call(self._connection.proofs.GetJob, request))

    async def jobs(
        self,
        *,
        model: ModelFacts | str | None = None,
        states: Sequence[JobState] = (),
        labels: Mapping[str, str] | None = None,
        batch: BatchFacts | str = "",
        page_size: int = 0,
    ) -> AsyncIterator[AsyncJob]:
        """Jobs, newest first: of one model, in one of some states, with all of some labels, of one batch. Pages are fetched as needed."""
        name = batch.name if isinstance(batch, BatchFacts) else batch
        request = _requests.list_jobs(states=states, labels=labels, batch=name, page_size=page_size)
        async for message in self._connection.items(_operations.list_jobs, model, request):
            yield AsyncJob._of(self._connection, message)

    async def batch(self, name: str) -> AsyncBatch:
        """The batch of a full name, such as `AsyncJob.batch`."""
        return AsyncBatch._of(self._connection, await self._connection.run(_operations.get_batch, name))

    async def create_webhook(self, url: str) -> CreatedWebhook:
        """Has a URL called when a job of the tenant ends; as `zkinfer.Client.create_webhook`."""
        return await self._connection.run(_operations.create_webhook, url)

    async def webhooks(self) -> list[Webhook]:
        """The tenant's webhooks, oldest first."""
        return [Webhook._of(message) async for message in self._connection.items(_operations.list_webhooks)]

    async def delete_webhook(self, webhook: Webhook | str) -> None:
        """Deletes a webhook, or that of a full name, and what was still to be sent to it."""
        await self._connection.run(_operations.delete_webhook, webhook)

    async def estimate(self, model: ModelFacts | str) -> model_pb2.CostEstimate:
        """What one proof of a model would cost."""
        return await self._connection.run(_operations.estimate, model)

    async def verify_remote(
        self,
        proof: Proof | bytes,
        statement: Statement | bytes | None = None,
        key: Key | bytes | None = None,
        *,
        model: ModelFacts | str | None = None,
        context: Context = None,
    ) -> Statement:
        """Has the service verify; raises VerifyError if it refuses; as `zkinfer.Client.verify_remote`."""
        return await self._connection.run(_operations.verify_remote, proof, statement, key, model, context)
