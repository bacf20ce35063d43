"""Bytes in and out, resumed where they broke off, with checksums both ways."""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from . import _verify
from ._connection import Services
from ._steps import Ask, Compute, Open, Pause, Receive, Steps, call
from .errors import AnswerError, ArtifactError, CallError
from .retry import Repetition
from .v1 import artifact_pb2

Source = bytes | str | os.PathLike[str]

ONNX = "application/onnx"
NPY = "application/x-npy"
OCTET_STREAM = "application/octet-stream"

# Largest proof, statement or key that is downloaded.
MAX_DOCUMENT_BYTES = 64 << 20
# Bytes of a chunk: well below the service's limit.
CHUNK_BYTES = 512 << 10
# Bytes that one call sends: few enough for its deadline on a slow link.
CALL_BYTES = 2 << 20

_NAME = re.compile(r"tenants/[^/]+/artifacts/([0-9a-f]{64})")


def begin_upload(source: Source, media_type: str) -> artifact_pb2.BeginUploadRequest:
    """The request for bytes, or for a file, which is read once for its hash and once to be sent."""
    hasher, size = _verify.Blake3(), 0
    with _open(source) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            size += len(chunk)
    return artifact_pb2.BeginUploadRequest(size_bytes=size, blake3=hasher.digest(), media_type=media_type, request_id=str(uuid.uuid4()))


def _open(source: Source) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")


def _chunks(source: Source, upload_name: str, offset: int) -> Iterator[artifact_pb2.WriteChunksRequest]:
    """What one call sends, from an offset on. Where nothing is left, one empty chunk finishes the upload."""
    end = offset + CALL_BYTES
    with _open(source) as file:
        file.seek(offset)
        while offset < end and ((data := file.read(min(CHUNK_BYTES, end - offset))) or upload_name):
            yield artifact_pb2.WriteChunksRequest(upload=upload_name, write_offset=offset, data=data, crc32c=_verify.crc32c(data))
            upload_name = ""
            offset += len(data)


def _send(services: Services, source: Source, session: artifact_pb2.UploadSession) -> Steps[artifact_pb2.UploadSession]:
    """One attempt at the call that sends what is next; answers how far the upload is."""
    # Read before the call, where reading does not hold up an event loop.
    messages = yield Compute(lambda: list(_chunks(source, session.upload, session.committed_bytes)))
    answer: artifact_pb2.UploadSession = yield Ask(services.artifacts.WriteChunks, iter(messages))
    return answer


def upload(services: Services, source: Source, media_type: str) -> Steps[str]:
    """Uploads bytes, or a file by its path; answers the artifact's name. Bytes that the service has are not sent.

    If the service has lost what it had, the upload begins again, at most `RetryPolicy.attempts` times in all.
    """
    request = yield Compute(lambda: begin_upload(source, media_type))
    session = yield from call(services, services.artifacts.BeginUpload, request)
    retry = services.options.retry
    repetition, n_begun = Repetition(retry), 1
    while not session.complete:
        before, cause = session.committed_bytes, None
        try:
            session = yield from _send(services, source, session)
        except CallError as error:
            if not error.is_transient:
                raise
            cause = error
            left = artifact_pb2.GetUploadRequest(upload=session.upload)
            session = yield from call(services, services.artifacts.GetUpload, left)
            # First how far it got: an attempt that took all of its time, and got on, was not in vain.
            if session.committed_bytes > before:
                repetition.reset()
            if not session.complete:
                yield Pause(repetition.wait_after(error))
                # What was on its way has arrived since, and where the upload goes on must be right.
                session = yield from call(services, services.artifacts.GetUpload, left)
        if session.committed_bytes > before:
            repetition.reset()
        elif session.committed_bytes < before:
            # That it gets on in between does not count: a service whose processes each know only their own bytes would lose them for ever.
            if n_begun >= retry.attempts:
                raise cause or AnswerError("the service loses bytes of the upload again and again")
            n_begun += 1
        elif not session.complete and cause is None:
            raise AnswerError("the service takes no more bytes of the upload, but does not call it complete")
    return str(session.artifact.name)


class Received:
    """What has come of an artifact of at most `limit` bytes; raises AnswerError for what is no artifact's name."""

    def __init__(self, name: str, limit: int) -> None:
        match = _NAME.fullmatch(name)
        if match is None:
            raise AnswerError(f"{name!r} is no artifact's name")
        self.data = bytearray()
        self._name, self._limit, self._hash = name, limit, match.group(1)

    def request(self) -> artifact_pb2.ReadArtifactRequest:
        """Asks for what is missing."""
        return artifact_pb2.ReadArtifactRequest(name=self._name, read_offset=len(self.data))

    def append(self, chunk: artifact_pb2.ReadArtifactResponse) -> None:
        """Takes a chunk; raises ArtifactError for one that is not what is due."""
        if chunk.offset != len(self.data):
            raise ArtifactError(f"artifact {self._name} arrived damaged: a chunk is out of place")
        if _verify.crc32c(chunk.data) != chunk.crc32c:
            raise ArtifactError(f"artifact {self._name} arrived damaged: the checksum of a chunk is wrong")
        if len(self.data) + len(chunk.data) > self._limit:
            raise ArtifactError(f"artifact {self._name} has more than {self._limit} bytes")
        self.data += chunk.data

    def finish(self) -> bytes:
        """All bytes; raises ArtifactError unless their hash is the one in the name."""
        hasher, data = _verify.Blake3(), bytes(self.data)
        hasher.update(data)
        if hasher.digest().hex() != self._hash:
            raise ArtifactError(f"artifact {self._name} arrived damaged: its hash is not the one in its name")
        return data


def download(services: Services, name: str, limit: int = MAX_DOCUMENT_BYTES) -> Steps[bytes]:
    """Downloads an artifact of at most `limit` bytes, and compares its hash with its name."""
    received = Received(name, limit)
    repetition = Repetition(services.options.retry)
    while True:
        before = len(received.data)
        try:
            yield Open(services.artifacts.ReadArtifact, received.request())
            while (chunk := (yield Receive(services.options.silence))) is not None:
                received.append(chunk)
            return received.finish()
        except CallError as error:
            if len(received.data) > before:
                repetition.reset()
            yield Pause(repetition.wait_after(error))
