"""Calls of the client and of its asyncio variant: the requests, and what is read from the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import _requests, _transfer
from ._connection import Services
from ._requests import Registration
from ._steps import Ask, Steps, Tell, call
from ._transfer import Source
from .documents import Context, ContextNonce, Key, Statement
from .errors import AnswerError, VerifyError
from .jobs import BATCH_INLINE_BYTES, INLINE_BYTES, JobRequest, Proof
from .models import ModelFacts
from .tensors import Array, npy
from .v1 import model_pb2, proof_pb2, system_pb2, webhook_pb2
from .verification import document_bytes
from .webhooks import CreatedWebhook, Webhook


def server_info(services: Services) -> Steps[system_pb2.ServerInfo]:
    """Facts about the service."""
    info: system_pb2.ServerInfo = yield from call(services, services.system.GetServerInfo, system_pb2.GetServerInfoRequest())
    return info


def model_name(services: Services, model: ModelFacts | str) -> Steps[str]:
    """The full name of a model, or of an id."""
    if isinstance(model, ModelFacts):
        return model.name
    if "/" in model:
        return model
    if services.tenant is None:
        services.tenant = (yield from server_info(services)).tenant
    return f"{services.tenant}/models/{model}"


def register_model(services: Services, registration: Registration, source: Source, calibration: Array | None) -> Steps[model_pb2.Model]:
    """Uploads a network and starts its registration."""
    source_artifact = yield from _transfer.upload(services, source, _transfer.ONNX)
    inputs = ""
    if calibration is not None:
        inputs = yield from _transfer.upload(services, npy(calibration), _transfer.NPY)
    request = registration.message(source_artifact, inputs)
    model: model_pb2.Model = yield from call(services, services.models.CreateModel, request)
    return model


def get_model(services: Services, model: str) -> Steps[model_pb2.Model]:
    """The model of an id, or of a full name."""
    request = model_pb2.GetModelRequest(name=(yield from model_name(services, model)))
    answer: model_pb2.Model = yield from call(services, services.models.GetModel, request)
    return answer


def list_models(services: Services, page_size: int) -> Steps[None]:
    """Tells all models, newest first."""
    request = model_pb2.ListModelsRequest(page_size=page_size)
    yield from _pages(services, services.models.ListModels, request, lambda page: page.models)


def list_jobs(services: Services, model: ModelFacts | str | None, request: proof_pb2.ListJobsRequest) -> Steps[None]:
    """Tells jobs, newest first; without a model those of all."""
    if model is not None:
        request.model = yield from model_name(services, model)
    yield from _pages(services, services.proofs.ListJobs, request, lambda page: page.jobs)


def _pages(services: Services, method: Callable[..., Any], request: Any, items: Callable[[Any], Sequence[Any]]) -> Steps[None]:
    """Tells what all pages hold; each is fetched when it is needed."""
    while True:
        page = yield from call(services, method, request)
        for item in items(page):
            yield Tell(item)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def create_job(services: Services, request: JobRequest) -> Steps[proof_pb2.Job]:
    """Admits a job."""
    message = yield from _job_message(services, request, INLINE_BYTES)
    message.request_id = _requests.fresh_id()
    job: proof_pb2.Job = yield from call(services, services.proofs.CreateJob, message)
    return job


def create_jobs(services: Services, requests: Sequence[JobRequest]) -> Steps[list[proof_pb2.Job]]:
    """Admits all jobs or none; answers one for each request."""
    messages = []
    for request in requests:
        messages.append((yield from _job_message(services, request, BATCH_INLINE_BYTES)))
    batch = proof_pb2.BatchCreateJobsRequest(requests=messages, request_id=_requests.fresh_id())
    answer = yield from call(services, services.proofs.BatchCreateJobs, batch)
    if len(answer.jobs) != len(messages):
        raise AnswerError(f"the service answered {len(answer.jobs)} jobs for {len(messages)} requests")
    return list(answer.jobs)


def _job_message(services: Services, request: JobRequest, inline_bytes: int) -> Steps[proof_pb2.CreateJobRequest]:
    message, upload = request._message(inline_bytes)
    message.job.model = yield from model_name(services, request.model)
    if upload is not None:
        message.job.input.artifact = yield from _transfer.upload(services, upload.data, upload.media_type)
    return message


def get_batch(services: Services, name: str) -> Steps[proof_pb2.Batch]:
    """The batch of a full name."""
    batch: proof_pb2.Batch = yield from call(services, services.proofs.GetBatch, proof_pb2.GetBatchRequest(name=name))
    return batch


def create_webhook(services: Services, url: str) -> Steps[CreatedWebhook]:
    """Has a URL told of ends of jobs. Not repeated: it has no request id."""
    return CreatedWebhook._of((yield Ask(services.webhooks.CreateWebhook, webhook_pb2.CreateWebhookRequest(url=url))))


def list_webhooks(services: Services) -> Steps[None]:
    """Tells all of the tenant, oldest first."""
    yield from _pages(services, services.webhooks.ListWebhooks, webhook_pb2.ListWebhooksRequest(), lambda page: page.webhooks)


def delete_webhook(services: Services, webhook: Webhook | str) -> Steps[None]:
    """Not repeated: a second deletion would find nothing."""
    name = webhook.name if isinstance(webhook, Webhook) else webhook
    yield Ask(services.webhooks.DeleteWebhook, webhook_pb2.DeleteWebhookRequest(name=name))


def estimate(services: Services, model: ModelFacts | str) -> Steps[model_pb2.CostEstimate]:
    """What one proof of a model would cost."""
    request = proof_pb2.EstimateJobRequest(model=(yield from model_name(services, model)))
    cost: model_pb2.CostEstimate = yield from call(services, services.proofs.EstimateJob, request)
    return cost


def verify_remote(
    services: Services,
    proof: Proof | bytes,
    statement: Statement | bytes | None,
    key: Key | bytes | None,
    model: ModelFacts | str | None,
    context: Context,
) -> Steps[Statement]:
    """The statement, accepted by the service; raises VerifyError if it is not. With a model, its key is taken."""
    proof_bytes, statement_bytes, key_bytes = document_bytes(proof, statement, key, needs_key=model is None)
    request = proof_pb2.VerifyProofRequest(proof_bytes=proof_bytes, statement_bytes=statement_bytes)
    if model is None:
        request.verifier_key_bytes = key_bytes
    else:
        request.model = yield from model_name(services, model)
    answer = yield from call(services, services.proofs.VerifyProof, request)
    if not answer.valid:
        raise VerifyError(answer.reason, answer.message)
    # The service does not know which use the caller has in mind.
    accepted = Statement.from_bytes(statement_bytes)
    if accepted.context_nonce != ContextNonce.of(context):
        raise VerifyError("OTHER_NONCE", "the statement is for another context nonce: the proof was made for another use")
    return accepted
