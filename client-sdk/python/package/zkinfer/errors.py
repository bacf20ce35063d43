"""What can go wrong, as exceptions. All of them are `ZkinferError`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from .progress import Failure

_DETAILS = "grpc-status-details-bin"


class ZkinferError(Exception):
    """Base of all errors of this package."""


class VerifyError(ZkinferError):
    """A proof, statement or key is refused.

    `reason` is stable, UPPER_SNAKE, and the same that `zkinfer verify` and the service give, such as `PROOF_INVALID` or `OTHER_NONCE`;
    `OTHER_INPUT` and `OTHER_MODEL` also stand for what the caller expected. `message` is for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{message} [{reason}]")
        self.reason = reason
        self.message = message


class EndedError(ZkinferError):
    """A registration or a job ended without success. `state` is its final state, `failure` says why."""

    def __init__(self, name: str, state: str, failure: Failure | None) -> None:
        super().__init__(f"{name} ended {state}: {failure or 'the service gave no reason'}")
        self.name = name
        self.state = state
        self.failure = failure

    @property
    def reason(self) -> str:
        """Stable, UPPER_SNAKE, such as `SHAPE_MISMATCH`; empty if the service gave none."""
        return self.failure.reason if self.failure else ""


class ArtifactError(ZkinferError):
    """What was downloaded is not what its name says, or larger than the caller allows."""


class AnswerError(ZkinferError):
    """The service's answer makes no sense: another version, or a fault."""


class WebhookError(ZkinferError):
    """A call of a webhook is not to be believed.

    `reason` is WRONG_SIGNATURE, NOT_FRESH or MISSING_HEADER; `message` is for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{message} [{reason}]")
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class FieldViolation:
    """A field of a request that is wrong: its path in the request, such as `job.model`, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True)
class CallDetails:
    """What the service said about a call that failed."""

    code: grpc.StatusCode
    message: str
    # Stable, UPPER_SNAKE; without details of the service: the code's name.
    reason: str
    field_violations: tuple[FieldViolation, ...] = ()
    # Seconds until another attempt makes sense; None if the service did not say.
    retry_after: float | None = None
    # Under which the service's log has the call; empty if nothing came from the service.
    request_id: str = ""
    metadata: Mapping[str, str] | None = None


class CallError(ZkinferError):
    """A call failed: the service refused it, or was not reached. The subclasses are what a caller may want to tell apart."""

    def __init__(self, details: CallDetails) -> None:
        request = f" (request {details.request_id})" if details.request_id else ""
        # What says "at once" need not be said.
        again = f"; try again in {math.ceil(details.retry_after)} s" if details.retry_after else ""
        super().__init__(f"{details.message} [{details.reason}]{request}{again}")
        self.details = details

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC code."""
        return self.details.code

    @property
    def reason(self) -> str:
        """Stable, UPPER_SNAKE, such as `MODEL_NOT_READY`."""
        return self.details.reason

    @property
    def message(self) -> str:
        """For people."""
        return self.details.message

    @property
    def field_violations(self) -> tuple[FieldViolation, ...]:
        """All fields of the request that are wrong."""
        return self.details.field_violations

    @property
    def retry_after(self) -> float | None:
        """Seconds until another attempt makes sense."""
        return self.details.retry_after

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed if repeated."""
        return False


class InvalidRequestError(CallError):
    """The request is wrong; `field_violations` names every wrong field."""


class NotFoundError(CallError):
    """It does not exist, or belongs to somebody else."""


class AlreadyExistsError(CallError):
    """It exists already."""


class PreconditionError(CallError):
    """Not in this state, for example: the model is not READY."""


class ExhaustedError(CallError):
    """A limit or a quota."""

    @property
    def is_transient(self) -> bool:
        return self.retry_after is not None


class UnauthenticatedError(CallError):
    """No valid API key, token or client certificate."""


class PermissionDeniedError(CallError):
    """The caller is known, and may not."""


class UnavailableError(CallError):
    """The service is not there, or not now."""

    @property
    def is_transient(self) -> bool:
        return True


class AbortedError(CallError):
    """Two calls met."""

    @property
    def is_transient(self) -> bool:
        return self.retry_after is not None


class InterruptedCallError(CallError):
    """An attempt at the call took longer than the client's `timeout` or the service's, or the call was cancelled; `code` tells which."""

    @property
    def is_transient(self) -> bool:
        return self.code is grpc.StatusCode.DEADLINE_EXCEEDED


class InternalError(CallError):
    """The service, or a machine below it, is at fault."""


_CLASSES: dict[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: InterruptedCallError,
    grpc.StatusCode.CANCELLED: InterruptedCallError,
}

# The service gives details with every error; these codes without details are of the connection, which broke, or of a proxy.
_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def call_error(error: grpc.Call) -> CallError:
    """The error of a call that gRPC reports as failed."""
    code = error.code() or grpc.StatusCode.UNKNOWN
    status = _status(error)
    is_broken = code in _BROKEN and not status.details
    kind = UnavailableError if is_broken else _CLASSES.get(code, InternalError)
    return kind(_details(code, error.details() or "", status))


def _status(error: grpc.Call) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                # Code and message stand beside it.
                break
    return status_pb2.Status()


def _details(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> CallDetails:
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    has_retry = False
    for detail in status.details:
        for target in (info, request, bad):
            if detail.Is(target.DESCRIPTOR):
                detail.Unpack(target)
        has_retry = (detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry)) or has_retry
    return CallDetails(
        code=code,
        message=message,
        reason=info.reason or code.name,
        field_violations=tuple(FieldViolation(each.field, each.description) for each in bad.field_violations),
        retry_after=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if has_retry else None,
        request_id=request.request_id,
        metadata=dict(info.metadata),
    )
