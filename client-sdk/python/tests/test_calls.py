"""Repetitions, transfers and watches, against a scripted service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry import trace

import zkinfer
from scripted import Scripted, run_out_of_time
from zkinfer import _transfer
from zkinfer._blocking import Connection
from zkinfer._connection import Options, call_metadata, parse_address
from zkinfer.jobs import Job
from zkinfer.v1 import proof_pb2

POLICY = zkinfer.RetryPolicy(attempts=3, first_wait=0.001, longest_wait=0.01, budget=5.0)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
IMAGE = np.zeros(4, dtype=np.uint8)
QUEUED, RUNNING, SUCCEEDED = 1, 2, 4


@pytest.fixture
def service() -> Iterator[Scripted]:
    """A scripted service."""
    scripted = Scripted()
    yield scripted
    scripted.stop()


@pytest.fixture
def client(service: Scripted) -> Iterator[zkinfer.Client]:
    """A client of it that does not wait long."""
    with zkinfer.Client(service.address, retry=POLICY, api_key="k-1") as client:
        yield client


@pytest.fixture
def connection(service: Scripted) -> Iterator[Connection]:
    """What lies under a client."""
    connection = Connection(service.address, Options(retry=POLICY, silence=1.0))
    yield connection
    connection.close()


def test_a_creation_is_repeated_with_the_same_request_id(service: Scripted, client: zkinfer.Client) -> None:
    service.proofs.errors = [(UNAVAILABLE, None), (UNAVAILABLE, 0.0)]
    client.submit("m", IMAGE)
    ids = {request.request_id for request in service.proofs.requests}
    assert len(service.proofs.requests) == 3 and len(ids) == 1
    client.submit("m", IMAGE)
    assert service.proofs.requests[-1].request_id not in ids
    assert service.proofs.requests[-1].job.model == "tenants/t/models/m"
    assert service.proofs.metadata["authorization"] == "Bearer k-1"


def test_a_call_is_part_of_the_current_span(service: Scripted, client: zkinfer.Client) -> None:
    client.submit("m", IMAGE)
    assert "traceparent" not in service.proofs.metadata
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    with trace.use_span(trace.NonRecordingSpan(context)):
        client.submit("m", IMAGE)
    assert service.proofs.metadata["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert service.proofs.metadata["authorization"] == "Bearer k-1"


@pytest.mark.parametrize(
    ("code", "retry_seconds", "n_calls"),
    [
        # docs/CLIENTS.md, line by line.
        (UNAVAILABLE, 0.0, 3),
        (UNAVAILABLE, None, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.0, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, 1),
        (grpc.StatusCode.ABORTED, 0.0, 3),
        (grpc.StatusCode.ABORTED, None, 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 0.0, 3),
        (grpc.StatusCode.DEADLINE_EXCEEDED, None, 3),
        (grpc.StatusCode.CANCELLED, 0.0, 1),
        (grpc.StatusCode.CANCELLED, None, 1),
        (grpc.StatusCode.UNKNOWN, 0.0, 1),
        (grpc.StatusCode.NOT_FOUND, 0.0, 1),
        (grpc.StatusCode.FAILED_PRECONDITION, 0.0, 1),
        # Longer than it waits by itself, and longer than it waits at all.
        (UNAVAILABLE, 0.05, 3),
        (UNAVAILABLE, 30.0, 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 30.0, 1),
        (grpc.StatusCode.INTERNAL, None, 1),
        (grpc.StatusCode.INVALID_ARGUMENT, 0.0, 1),
        (grpc.StatusCode.UNAUTHENTICATED, None, 1),
    ],
)
def test_only_what_may_succeed_is_repeated(
    service: Scripted, client: zkinfer.Client, code: grpc.StatusCode, retry_seconds: float | None, n_calls: int
) -> None:
    service.proofs.errors = [(code, retry_seconds)] * 5
    with pytest.raises(zkinfer.CallError) as caught:
        client.submit("m", IMAGE)
    assert len(service.proofs.requests) == n_calls
    assert caught.value.code is code and caught.value.reason == "SCRIPTED"
    assert caught.value.retry_after == retry_seconds
    assert str(caught.value).endswith("; try again in 30 s") == (retry_seconds == 30.0)


@pytest.mark.parametrize(
    ("code", "n_calls"),
    [
        (UNAVAILABLE, 3),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 3),
        (grpc.StatusCode.INTERNAL, 3),
        (grpc.StatusCode.UNKNOWN, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1),
        (grpc.StatusCode.ABORTED, 1),
        (grpc.StatusCode.CANCELLED, 1),
        (grpc.StatusCode.DATA_LOSS, 1),
        (grpc.StatusCode.NOT_FOUND, 1),
    ],
)
def test_an_error_that_is_not_the_services_is_a_connection_that_broke(
    service: Scripted, client: zkinfer.Client, code: grpc.StatusCode, n_calls: int
) -> None:
    service.proofs.bare_errors = [code] * 5
    with pytest.raises(zkinfer.CallError) as caught:
        client.submit("m", IMAGE)
    assert len(service.proofs.requests) == n_calls
    assert caught.value.code is code
    assert isinstance(caught.value, zkinfer.UnavailableError) == (code in (UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN))


def test_attempts_that_ran_out_of_their_time_use_up_the_budget(service: Scripted) -> None:
    service.proofs.errors = [(grpc.StatusCode.DEADLINE_EXCEEDED, None)] * 5
    with zkinfer.Client(service.address, retry=replace(POLICY, budget=0.0)) as client, pytest.raises(zkinfer.InterruptedCallError):
        client.submit("m", IMAGE)
    assert len(service.proofs.requests) == 1


def test_nobody_answers() -> None:
    with zkinfer.Client("http://127.0.0.1:1", retry=POLICY) as client, pytest.raises(zkinfer.UnavailableError):
        client.server_info()


def test_an_upload_is_resumed_where_it_broke_off(service: Scripted, connection: Connection) -> None:
    data = bytes(range(256)) * 10_000
    service.artifacts.breaks = [_transfer.CHUNK_BYTES, 2 * _transfer.CHUNK_BYTES]
    connection.run(_transfer.upload, data, _transfer.NPY)
    assert bytes(service.artifacts.data) == data
    assert service.artifacts.offsets == [0, _transfer.CHUNK_BYTES, 3 * _transfer.CHUNK_BYTES]


def test_an_upload_that_gets_on_outlasts_calls_that_run_out_of_their_time(
    service: Scripted, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run_out_of_time(service, monkeypatch)
    connection.run(_transfer.upload, data, _transfer.NPY)
    assert bytes(service.artifacts.data) == data
    assert service.artifacts.offsets == list(range(0, len(data), 1000))
    # Whoever does not get on is given up.
    service.artifacts.data.clear()
    service.artifacts.breaks = [0]
    with pytest.raises(zkinfer.InterruptedCallError):
        connection.run(_transfer.upload, data, _transfer.NPY)
    assert not service.artifacts.data and not service.artifacts.breaks


def test_an_upload_that_got_on_has_all_its_attempts_again(
    service: Scripted, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "CHUNK_BYTES", 1000)
    # The third failure would be the last, had it not got on.
    service.artifacts.breaks = [0, 0, 1000, 0, 0, 1000, 0]
    connection.run(_transfer.upload, bytes(3000), _transfer.NPY)
    assert bytes(service.artifacts.data) == bytes(3000) and not service.artifacts.breaks
    service.artifacts.data.clear()
    service.artifacts.breaks = [1000, 0, 0, 0]
    with pytest.raises(zkinfer.UnavailableError):
        connection.run(_transfer.upload, bytes(3000), _transfer.NPY)


def test_an_upload_that_is_forgotten_again_and_again_is_given_up(
    service: Scripted, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "CALL_BYTES", 1000)
    service.artifacts.is_forgetful = True
    with pytest.raises(zkinfer.AbortedError) as caught:
        connection.run(_transfer.upload, bytes(3000), _transfer.NPY)
    assert caught.value.reason == "UPLOAD_STARTS_AGAIN"
    assert service.artifacts.offsets == [0] * POLICY.attempts


def test_a_file_is_uploaded_in_calls_of_bounded_size(
    service: Scripted, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(_transfer, "CALL_BYTES", 2500)
    (tmp_path / "file").write_bytes(bytes(6001))
    connection.run(_transfer.upload, tmp_path / "file", _transfer.ONNX)
    assert len(service.artifacts.data) == 6001
    assert service.artifacts.offsets == [0, 2500, 5000]


def test_a_download_is_resumed_and_its_hash_compared(service: Scripted, connection: Connection) -> None:
    data = bytes(range(256)) * 50
    name = service.artifacts.store(data)
    service.artifacts.read_breaks = [3000, 7000]
    assert connection.run(_transfer.download, name) == data
    assert service.artifacts.reads == [0, 3000, 7000]
    with pytest.raises(zkinfer.ArtifactError, match="more than 100 bytes"):
        connection.run(_transfer.download, name, limit=100)
    service.artifacts.stored[name] = data[:-1]
    with pytest.raises(zkinfer.ArtifactError, match="hash"):
        connection.run(_transfer.download, name)
    service.artifacts.damage = 1
    with pytest.raises(zkinfer.ArtifactError, match="checksum"):
        connection.run(_transfer.download, name)
    with pytest.raises(zkinfer.AnswerError, match="no artifact's name"):
        connection.run(_transfer.download, "tenants/t/models/m")


def watched(service: Scripted, client: zkinfer.Client, *streams: list[tuple[int, int, str]]) -> list[int]:
    """The sequences that a watch over these streams gives."""
    service.proofs.streams = list(streams)
    return [event.sequence for event in client.submit("m", IMAGE).watch()]


def test_a_watch_resumes_after_its_last_sequence(service: Scripted, client: zkinfer.Client) -> None:
    first = [(3, QUEUED, "snapshot"), (4, RUNNING, ""), (4, RUNNING, "heartbeat")]
    second = [(4, RUNNING, "snapshot"), (5, RUNNING, ""), (6, SUCCEEDED, "result")]
    assert watched(service, client, first, second) == [3, 4, 5, 6]
    assert [request.from_sequence for request in service.proofs.requests[1:]] == [0, 5]


def test_a_watch_of_a_final_job_gives_its_snapshot(service: Scripted, client: zkinfer.Client) -> None:
    assert watched(service, client, [(7, SUCCEEDED, "snapshot")]) == [7]


def test_a_gap_is_told(service: Scripted, client: zkinfer.Client) -> None:
    with pytest.raises(zkinfer.AnswerError, match="event 5 of tenants/t/jobs/j came instead of 4"):
        watched(service, client, [(3, QUEUED, "snapshot"), (5, RUNNING, "")])


def test_a_stream_that_only_ends_is_given_up(service: Scripted, client: zkinfer.Client) -> None:
    with pytest.raises(zkinfer.AnswerError, match="again and again"):
        watched(service, client, [], [], [])


def watched_batch(service: Scripted, client: zkinfer.Client, *streams: list[tuple[int, list[str]]]) -> list[tuple[int, tuple[str, ...]]]:
    """What a watch over these streams of a batch tells: how many have succeeded, and which ends are new."""
    service.proofs.batch_streams = list(streams)
    return [(event.batch.succeeded, event.ended) for event in client.batch("tenants/t/batches/b").watch()]


def test_each_end_in_a_batch_is_told_once_through_streams_that_end(service: Scripted, client: zkinfer.Client) -> None:
    # A sign of life repeats what is known; a new stream begins with all that have ended.
    first: list[tuple[int, list[str]]] = [(0, []), (0, []), (1, ["j-1"]), (1, [])]
    second = [(1, ["j-1"]), (2, ["j-2"])]
    assert watched_batch(service, client, first, second) == [(0, ()), (1, ("j-1",)), (2, ("j-2",))]
    assert watched_batch(service, client, first, [(2, ["j-1", "j-2"])])[-1] == (2, ("j-2",))
    # A message has room for so many names: the batch is final before all are told.
    assert watched_batch(service, client, [(2, ["j-1"]), (2, ["j-2"])]) == [(2, ("j-1",)), (2, ("j-2",))]
    with pytest.raises(zkinfer.AnswerError, match="again and again"):
        watched_batch(service, client, [], [], [])


def test_a_wait_that_goes_beyond_a_watch_is_not_begun(service: Scripted) -> None:
    with zkinfer.Client(service.address) as patient:
        job = patient.submit("m", IMAGE)
        service.proofs.errors = [(UNAVAILABLE, 40.0)]
        with pytest.raises(TimeoutError, match=job.name):
            list(job.watch(timeout=20))
    # The other way round: the wait does not fit the policy.
    with zkinfer.Client(service.address, retry=POLICY) as client:
        service.proofs.errors = [(UNAVAILABLE, 40.0)]
        with pytest.raises(zkinfer.UnavailableError):
            list(client.job(job.name).watch(timeout=60))


def test_a_silent_stream_is_opened_anew(service: Scripted, connection: Connection) -> None:
    service.proofs.streams = [[(1, QUEUED, "snapshot")], [(1, QUEUED, "snapshot"), (2, SUCCEEDED, "result")]]
    service.proofs.n_silent = 1
    job = Job._of(connection, proof_pb2.Job(name="tenants/t/jobs/j"))
    assert [event.sequence for event in job.watch()] == [1, 2]
    assert [request.from_sequence for request in service.proofs.requests] == [0, 2]


def test_addresses_are_read() -> None:
    assert parse_address("http://localhost:50061").target == "localhost:50061"
    assert parse_address("https://prove.example").target == "prove.example:443"
    assert parse_address("http://[::1]:7/").target == "[::1]:7"
    assert parse_address("http://127.0.0.2:1").is_loopback and not parse_address("http://10.0.0.1:1").is_loopback
    for wrong in ("", "localhost:1", "ftp://localhost:1", "http://", "http://x:99999", "http://x/path", "http://u@x:1", "http://x:1?q"):
        with pytest.raises(ValueError, match="is not an address"):
            parse_address(wrong)


def test_credentials_that_protect_nothing_or_cannot_be_sent_are_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        zkinfer.Client("http://127.0.0.1:1", ca=b"pem")
    with pytest.raises(ValueError, match="need each other"):
        zkinfer.Client("https://127.0.0.1:1", cert=b"pem")
    with pytest.raises(ValueError, match="not both"):
        zkinfer.Client("http://127.0.0.1:1", api_key="a", token="b")
    for wrong in ("", "two words", "line\n"):
        with pytest.raises(ValueError, match="cannot be sent") as caught:
            call_metadata(wrong)
        assert not wrong or wrong not in str(caught.value)
    assert "secret" not in repr(Options(credential="secret", key=b"secret"))
