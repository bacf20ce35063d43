"""zkinfer: proofs that a committed neural network, on this input, gave this output. numpy in, proof out.

    import zkinfer

    with zkinfer.Client("http://127.0.0.1:50061") as client:
        client.register_model("model_int8_qdq.onnx", model_id="digits")
        proof = client.prove("digits", image, context="order 4711")
    zkinfer.verify(proof, context="order 4711")

`verify` needs no service. Calls that may be repeated without harm are repeated while the service is away: reads, and creations, which
carry a request id. All errors are `ZkinferError`, but for wrong types and values of arguments.
"""

from .batches import Batch, BatchEvent
from .client import Client
from .documents import ContextNonce, Key, Statement, random_words
from .errors import (
    AbortedError,
    AlreadyExistsError,
    AnswerError,
    ArtifactError,
    CallError,
    EndedError,
    ExhaustedError,
    FieldViolation,
    InternalError,
    InterruptedCallError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
    VerifyError,
    WebhookError,
    ZkinferError,
)
from .jobs import Job, JobEvent, JobRequest, Proof
from .models import Model, ModelEvent, Registered, TensorSpec
from .progress import Failure, JobState, ModelState, Progress, Stage
from .retry import RetryPolicy
from .tensors import Tensor
from .verification import ALL_PROFILES, Acceptance, Verified, verify
from .webhooks import CreatedWebhook, Webhook, WebhookEvent, verify_webhook

__all__ = [
    "ALL_PROFILES",
    "AbortedError",
    "Acceptance",
    "AlreadyExistsError",
    "AnswerError",
    "ArtifactError",
    "Batch",
    "BatchEvent",
    "CallError",
    "Client",
    "ContextNonce",
    "CreatedWebhook",
    "EndedError",
    "ExhaustedError",
    "Failure",
    "FieldViolation",
    "InternalError",
    "InterruptedCallError",
    "InvalidRequestError",
    "Job",
    "JobEvent",
    "JobRequest",
    "JobState",
    "Key",
    "Model",
    "ModelEvent",
    "ModelState",
    "NotFoundError",
    "PermissionDeniedError",
    "PreconditionError",
    "Progress",
    "Proof",
    "Registered",
    "RetryPolicy",
    "Stage",
    "Statement",
    "Tensor",
    "TensorSpec",
    "UnauthenticatedError",
    "UnavailableError",
    "Verified",
    "VerifyError",
    "Webhook",
    "WebhookError",
    "WebhookEvent",
    "ZkinferError",
    "random_words",
    "verify",
    "verify_webhook",
]
