"""Webhooks: URLs that the service calls when a job ends, and how their owner tells that a call is the service's.

    @app.post("/hook")
    def hook():
        event = zkinfer.verify_webhook(SECRET, request.headers, request.get_data())   # raises WebhookError
        ...

Calls are signed by the Standard Webhooks specification. One may come twice, with the same `WebhookEvent.id`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from .errors import AnswerError, WebhookError
from .progress import JobState, moment
from .v1 import webhook_pb2

# Seconds that the clocks of the service and of the receiver may be apart, the way of the call included.
TOLERANCE = 300.0

_SECRET_PREFIX = "whsec_"
# The one version of signatures that there is.
_VERSION = "v1"


@dataclass(frozen=True)
class Webhook:
    """A URL that the service calls when a job of the tenant ends."""

    # `tenants/{tenant}/webhooks/{uuid}`.
    name: str
    url: str
    create_time: datetime

    @classmethod
    def _of(cls, message: webhook_pb2.Webhook) -> Webhook:
        return cls(message.name, message.url, moment(message.create_time))


@dataclass(frozen=True)
class CreatedWebhook:
    """A new webhook, and the key of its signatures for `verify_webhook`, which is told here only."""

    webhook: Webhook
    # Not printed.
    secret: str = field(repr=False)

    @classmethod
    def _of(cls, message: webhook_pb2.CreateWebhookResponse) -> CreatedWebhook:
        return cls(Webhook._of(message.webhook), message.secret)


@dataclass(frozen=True)
class WebhookEvent:
    """What a call says: a job has ended. Of a newer service's other events only `id`, `type` and `time` are told."""

    # The same for every try: whoever has seen it is done.
    id: str
    # `job.ended`.
    type: str
    # When the job ended.
    time: datetime | None
    # Its full name, `tenants/{tenant}/jobs/{uuid}`.
    job: str = ""
    state: JobState = JobState.UNKNOWN
    # Full name of its batch; empty if it came with none.
    batch: str = ""
    # Why it ended without success; empty if it SUCCEEDED.
    reason: str = ""
    # Names of artifacts, if it SUCCEEDED.
    proof_artifact: str = ""
    statement_artifact: str = ""


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, tolerance: float = TOLERANCE, now: float | None = None
) -> WebhookEvent:
    """Checks that a call is the service's and fresh, and reads it; raises WebhookError for any other.

    `secret` is the webhook's, as it was told: `whsec_...`. `headers` are the call's, in any case of letters, and `body` its bytes as they
    came: a body that was parsed and written again has another signature. `now`, in seconds since 1970, is the clock's unless given.
    Signatures are compared in constant time. Raises ValueError for what is no secret.
    """
    key = _key(secret)
    lower = {name.lower(): value for name, value in headers.items()}
    id_, timestamp, signatures = (_header(lower, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature"))
    mac = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = f"{_VERSION},{base64.b64encode(mac).decode()}".encode()
    # Several signatures are for several keys. None is skipped, whichever fits.
    if sum(hmac.compare_digest(expected, each.encode()) for each in signatures.split(" ")) == 0:
        raise WebhookError("WRONG_SIGNATURE", "the signature is not one of this webhook's secret over this call")
    _check_fresh(timestamp, time.time() if now is None else now, tolerance)
    return _event(id_, body)


def _check_fresh(timestamp: str, now: float, tolerance: float) -> None:
    try:
        apart = abs(now - int(timestamp))
    except ValueError:
        raise WebhookError("NOT_FRESH", "the header webhook-timestamp is not a number of seconds") from None
    if apart > tolerance:
        raise WebhookError("NOT_FRESH", f"the call was signed {apart:.0f} s from now, of which {tolerance:.0f} s are accepted")


def _key(secret: str) -> bytes:
    try:
        encoded = secret.removeprefix(_SECRET_PREFIX)
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_SECRET_PREFIX) or not key:
        # Without the value: it is a secret.
        raise ValueError("the secret of a webhook has the form whsec_BASE64, as the service told it when the webhook was made")
    return key


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise WebhookError("MISSING_HEADER", f"the call has no header {name}")
    return value


def _event(id_: str, body: bytes) -> WebhookEvent:
    try:
        event = json.loads(body)
        kind, ended = event["type"], Timestamp()
        if (text := event.get("timestamp")) is not None:
            ended.FromJsonString(text)
        facts = _ended_job(event["data"]) if kind == "job.ended" else {}
        return WebhookEvent(id_, kind, None if text is None else moment(ended), **facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnswerError("the body of the call is signed, but cannot be read") from error


def _ended_job(data: Mapping[str, Any]) -> dict[str, Any]:
    state = JobState.__members__.get(data["state"], JobState.UNKNOWN)
    texts = {name: data.get(name) or "" for name in ("batch", "reason", "proof_artifact", "statement_artifact")}
    return {"job": data["name"], "state": state, **texts}
