"""Webhooks: calls of the real service to a receiver on this machine, and calls that are not to be believed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

import zkinfer
from daemon import Daemon
from zkinfer.aio import AsyncClient

PATIENCE_SECONDS = 60


class Receiver:
    """Takes calls on a free port of the loopback interface, and answers that they were heard. Ended with the block."""

    def __init__(self) -> None:
        calls: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(204)
                self.end_headers()
                calls.put((dict(self.headers.items()), body))

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is printed."""

        self._calls = calls
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def next(self) -> tuple[dict[str, str], bytes]:
        """Headers and body of the next call."""
        return self._calls.get(timeout=PATIENCE_SECONDS)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def refusal(secret: str, headers: dict[str, str], body: bytes, **options: float) -> str:
    """The reason for which a call is not believed."""
    with pytest.raises(zkinfer.WebhookError) as caught:
        zkinfer.verify_webhook(secret, headers, body, **options)
    assert caught.value.message and secret not in str(caught.value)
    return caught.value.reason


def test_a_webhook_hears_signed_of_the_ends_of_jobs(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    with Receiver() as receiver:
        created = client.create_webhook(receiver.url)
        assert created.webhook.url == receiver.url and created.secret not in repr(created)
        assert created.webhook.name in {each.name for each in client.webhooks()}
        job, wrong = client.submit_batch([zkinfer.JobRequest(model, samples[:1]), zkinfer.JobRequest(model, samples[:1, :29])])
        calls = [receiver.next() for _ in range(2)]
        client.delete_webhook(created.webhook)
    told = {event.job: event for event in (zkinfer.verify_webhook(created.secret, *call) for call in calls)}
    event = told[job.name]
    assert (event.type, event.state, event.batch, event.reason) == ("job.ended", zkinfer.JobState.SUCCEEDED, job.batch, "")
    result = job.refresh()._result
    assert result is not None
    assert (event.proof_artifact, event.statement_artifact) == (result.proof_artifact, result.statement_artifact)
    end_time = job.refresh().end_time
    assert event.time is not None and end_time is not None and abs((event.time - end_time).total_seconds()) < 1e-3
    assert (told[wrong.name].state, told[wrong.name].reason) == (zkinfer.JobState.FAILED, "SHAPE_MISMATCH")
    assert told[wrong.name].proof_artifact == "" and told[wrong.name].id != event.id
    headers, body = calls[0]
    assert refusal(created.secret, headers, body + b" ") == "WRONG_SIGNATURE"
    assert client.webhooks() == []
    with pytest.raises(zkinfer.NotFoundError):
        client.delete_webhook(created.webhook.name)


def test_webhooks_are_made_listed_and_deleted_with_asyncio(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    async def run(receiver: Receiver) -> None:
        async with AsyncClient(daemon.address) as client:
            created = await client.create_webhook(receiver.url)
            assert [each.name for each in await client.webhooks()] == [created.webhook.name]
            job = await client.submit(model, samples[:1, :29])
            event = zkinfer.verify_webhook(created.secret, *await asyncio.to_thread(receiver.next))
            assert (event.job, event.batch, event.reason) == (job.name, "", "SHAPE_MISMATCH")
            await client.delete_webhook(created.webhook)
            assert await client.webhooks() == []
            with pytest.raises(zkinfer.InvalidRequestError) as caught:
                await client.create_webhook("nonsense")
            assert [violation.field for violation in caught.value.field_violations] == ["url"]

    with Receiver() as receiver:
        asyncio.run(run(receiver))


NOW = 1_700_000_000
SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
BODY = json.dumps({"type": "job.ended", "timestamp": None, "data": {"name": "tenants/t/jobs/j", "state": "EXPIRED"}}).encode()


def signed(body: bytes, key: bytes = bytes(range(32)), timestamp: object = NOW) -> dict[str, str]:
    """The headers of a call."""
    signature = base64.b64encode(hmac.digest(key, f"m-1.{timestamp}.".encode() + body, hashlib.sha256)).decode()
    return {"Webhook-Id": "m-1", "WEBHOOK-TIMESTAMP": str(timestamp), "webhook-signature": f"v1,{signature}"}


def test_signatures_are_those_of_the_specification_and_of_the_service() -> None:
    # An example that implementations of the specification share, and one of the service's own tests: signed, but no event.
    for secret, id_, timestamp, body, signature in (
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (SECRET, "msg_1", NOW, b'{"a":1}', "v1,AMaOha7DUT/0J0JMycRuYOBSvbx3WtwLd2khXXbaVj4="),
    ):
        headers = {"webhook-id": id_, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
        with pytest.raises(zkinfer.AnswerError, match="cannot be read"):
            zkinfer.verify_webhook(secret, headers, body, now=timestamp)
        assert refusal(secret, headers, body + b" ", now=timestamp) == "WRONG_SIGNATURE"


def test_calls_that_are_not_of_the_service_or_old_are_refused() -> None:
    headers = signed(BODY)
    event = zkinfer.verify_webhook(SECRET, headers, BODY, now=NOW + 300)
    assert (event.id, event.job, event.state, event.time) == ("m-1", "tenants/t/jobs/j", zkinfer.JobState.EXPIRED, None)
    for seconds in (-301, 301):
        assert refusal(SECRET, headers, BODY, now=NOW + seconds) == "NOT_FRESH"
    assert refusal(SECRET, headers, BODY, now=NOW + 11, tolerance=10) == "NOT_FRESH"
    assert refusal(SECRET, signed(BODY, timestamp="nan"), BODY, now=NOW) == "NOT_FRESH"
    # The clock is asked.
    assert refusal(SECRET, headers, BODY) == "NOT_FRESH"
    other = f"whsec_{base64.b64encode(bytes(32)).decode()}"
    assert refusal(other, headers, BODY, now=NOW) == "WRONG_SIGNATURE"
    for name in headers:
        assert refusal(SECRET, {key: value for key, value in headers.items() if key != name}, BODY, now=NOW) == "MISSING_HEADER"
        for changed in ("x", headers[name] + "0", "v2," + headers[name][3:], "\u00e9"):
            assert refusal(SECRET, headers | {name: changed}, BODY, now=NOW) == "WRONG_SIGNATURE"


def test_one_of_several_signatures_is_enough() -> None:
    ours, theirs = signed(BODY), signed(BODY, key=b"another key")
    for pair in ((ours, theirs), (theirs, ours)):
        headers = ours | {"webhook-signature": " ".join(each["webhook-signature"] for each in pair)}
        assert zkinfer.verify_webhook(SECRET, headers, BODY, now=NOW).type == "job.ended"
    assert refusal(SECRET, ours | {"webhook-signature": theirs["webhook-signature"]}, BODY, now=NOW) == "WRONG_SIGNATURE"


def test_events_of_a_newer_service_pass_and_what_cannot_be_read_does_not() -> None:
    body = b'{"type": "model.ready", "timestamp": "2023-11-14T22:13:20.5Z"}'
    event = zkinfer.verify_webhook(SECRET, signed(body), body, now=NOW)
    assert (event.type, event.job, event.state) == ("model.ready", "", zkinfer.JobState.UNKNOWN)
    assert event.time is not None and event.time.timestamp() == NOW + 0.5
    for body in (b"", b"[]", b"null", b"{}", b'{"type": "job.ended"}', b'{"type": "job.ended", "timestamp": 1, "data": {}}', b"\xff"):
        with pytest.raises(zkinfer.AnswerError, match="cannot be read"):
            zkinfer.verify_webhook(SECRET, signed(body), body, now=NOW)


def test_what_is_no_secret_is_told_without_it() -> None:
    for wrong in ("", "whsec_", "whsec_*", "AAECAwQ=", "whsec_AAE"):
        with pytest.raises(ValueError, match="whsec_BASE64") as caught:
            zkinfer.verify_webhook(wrong, signed(BODY), BODY, now=NOW)
        assert len(wrong) < 7 or wrong not in str(caught.value)


def test_all_pages_of_webhooks_are_listed(tmp_path: Path) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text('{"default_page_size": 1}', encoding="utf-8")

    async def listed(daemon: Daemon) -> list[str]:
        async with AsyncClient(daemon.address) as client:
            return [webhook.name for webhook in await client.webhooks()]

    with Daemon(tmp_path, "--webhooks-anywhere", "--limits", str(limits)) as daemon, zkinfer.Client(daemon.address) as client:
        names = [client.create_webhook(f"http://127.0.0.1:1/{number}").webhook.name for number in range(3)]
        assert [webhook.name for webhook in client.webhooks()] == names
        assert asyncio.run(listed(daemon)) == names
