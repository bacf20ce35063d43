"""A service that does what a test tells it, over real gRPC on the loopback interface."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from zkinfer import _transfer, _verify, retry
from zkinfer.v1 import artifact_pb2, artifact_pb2_grpc, proof_pb2, proof_pb2_grpc, system_pb2, system_pb2_grpc

# A silent stream ends by itself if nobody ends it before.
SILENT_SECONDS = 30


def refuse(
    context: Any, code: grpc.StatusCode, reason: str, retry_seconds: float | None = None, fields: dict[str, str] | None = None
) -> None:
    """Ends a call with an error like the service's own."""
    status = status_pb2.Status(code=code.value[0], message="scripted")
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="zkinfer"), error_details_pb2.RequestInfo(request_id="r-1")]
    if retry_seconds is not None:
        delay = duration_pb2.Duration(seconds=int(retry_seconds), nanos=round(retry_seconds % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if fields:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in fields.items()]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    for detail in details:
        status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "scripted")


class Clock:
    """In place of the module `time`, for those who ask how long a call took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """Stands still but for what a test adds."""
        return self.seconds


class Artifacts(artifact_pb2_grpc.ArtifactServiceServicer):
    """Keeps uploads in memory; breaks off after the bytes that `breaks` names, one a call, and forgets them when more is to come.

    A call that breaks off takes `break_seconds` by the clock, if there is one.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0
        self.breaks: list[int] = []
        self.break_code = grpc.StatusCode.UNAVAILABLE
        self.break_seconds = 0.0
        self.clock: Clock | None = None
        self.offsets: list[int] = []
        self.is_forgetful = False
        self.stored: dict[str, bytes] = {}
        self.read_breaks: list[int] = []
        self.reads: list[int] = []
        self.damage = 0

    def _session(self) -> artifact_pb2.UploadSession:
        session = artifact_pb2.UploadSession(upload="tenants/t/uploads/u", committed_bytes=len(self.data))
        if len(self.data) == self.size:
            session.complete = True
            session.artifact.name = f"tenants/t/artifacts/{hashlib.sha256(self.data).hexdigest()}"
        return session

    def BeginUpload(self, request: Any, context: Any) -> Any:
        self.size = request.size_bytes
        return self._session()

    def GetUpload(self, request: Any, context: Any) -> Any:
        return self._session()

    def WriteChunks(self, requests: Iterator[Any], context: Any) -> Any:
        left = self.breaks.pop(0) if self.breaks else None
        if self.is_forgetful and self.data:
            self.data.clear()
            refuse(context, grpc.StatusCode.ABORTED, "UPLOAD_STARTS_AGAIN", 0.0)
        if left == 0:
            self._break_off(context)
        for position, request in enumerate(requests):
            assert (request.upload != "") == (position == 0)
            assert request.write_offset == len(self.data) and request.crc32c == _verify.crc32c(request.data)
            if position == 0:
                self.offsets.append(request.write_offset)
            self.data += request.data
            if left is not None and (left := left - len(request.data)) <= 0:
                self._break_off(context)
        return self._session()

    def _break_off(self, context: Any) -> None:
        if self.clock is not None:
            self.clock.seconds += self.break_seconds
        refuse(context, self.break_code, "BROKEN_OFF", 0.0)

    def store(self, data: bytes) -> str:
        """Keeps bytes under their name."""
        hasher = _verify.Blake3()
        hasher.update(data)
        name = f"tenants/t/artifacts/{hasher.digest().hex()}"
        self.stored[name] = data
        return name

    def ReadArtifact(self, request: Any, context: Any) -> Iterator[Any]:
        data, offset = self.stored[request.name], request.read_offset
        self.reads.append(offset)
        end = self.read_breaks.pop(0) if self.read_breaks else len(data)
        while offset < min(end, len(data)):
            piece = data[offset : offset + 1000]
            yield artifact_pb2.ReadArtifactResponse(offset=offset, data=piece, crc32c=_verify.crc32c(piece) ^ self.damage)
            offset += len(piece)
        if offset < len(data):
            refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING", 0.0)


class Proofs(proof_pb2_grpc.ProofServiceServicer):
    """Answers from lists: an error is raised by refusing."""

    def __init__(self) -> None:
        self.errors: list[tuple[grpc.StatusCode, float | None]] = []
        # Errors without details, as something between the client and the service gives them.
        self.bare_errors: list[grpc.StatusCode] = []
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}
        # For each stream: its events as (sequence, state, detail).
        self.streams: list[list[tuple[int, int, str]]] = []
        # For each stream of a batch of two jobs: how many have succeeded, and which of them are told.
        self.batch_streams: list[list[tuple[int, list[str]]]] = []
        # So many streams fall silent after their events; later ones end.
        self.n_silent = 0

    def CreateJob(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self.bare_errors:
            context.abort(self.bare_errors.pop(0), "bare")
        if self.errors:
            code, retry_seconds = self.errors.pop(0)
            refuse(context, code, "SCRIPTED", retry_seconds)
        return proof_pb2.Job(name="tenants/t/jobs/j", state=proof_pb2.Job.STATE_QUEUED)

    def GetJob(self, request: Any, context: Any) -> Any:
        return proof_pb2.Job(name=request.name, state=proof_pb2.Job.STATE_QUEUED)

    def GetBatch(self, request: Any, context: Any) -> Any:
        return proof_pb2.Batch(name=request.name, total=2, queued=2)

    def WatchBatch(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        for n_succeeded, ended in self.batch_streams.pop(0):
            batch = proof_pb2.Batch(name=request.name, total=2, running=2 - n_succeeded, succeeded=n_succeeded)
            yield proof_pb2.BatchEvent(batch=batch, ended=ended)

    def WatchJob(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        if self.errors:
            refuse(context, self.errors[0][0], "SCRIPTED", self.errors.pop(0)[1])
        is_silent, self.n_silent = self.n_silent > 0, self.n_silent - 1
        for sequence, state, detail in self.streams.pop(0):
            event = proof_pb2.JobEvent(sequence=sequence, state=state)  # type: ignore[arg-type]
            if detail:
                getattr(event, detail).SetInParent()
            yield event
        if is_silent:
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(SILENT_SECONDS)


class System(system_pb2_grpc.SystemServiceServicer):
    """Says who the caller is."""

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return system_pb2.ServerInfo(tenant="tenants/t")


class Scripted:
    """The service, running."""

    def __init__(self) -> None:
        self.artifacts, self.proofs = Artifacts(), Proofs()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(self.artifacts, self._server)
        proof_pb2_grpc.add_ProofServiceServicer_to_server(self.proofs, self._server)
        system_pb2_grpc.add_SystemServiceServicer_to_server(System(), self._server)
        self.address = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Ends it, and all calls."""
        self._server.stop(None).wait(10)


def run_out_of_time(service: Scripted, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes that need more calls than a client has attempts, of which all but the last run out of their time: longer than any budget."""
    monkeypatch.setattr(_transfer, "CHUNK_BYTES", 1000)
    service.artifacts.break_code = grpc.StatusCode.DEADLINE_EXCEEDED
    service.artifacts.breaks = [1000] * 7
    service.artifacts.clock, service.artifacts.break_seconds = Clock(), 75.0
    monkeypatch.setattr(retry, "time", service.artifacts.clock)
    return bytes(range(200)) * 40
