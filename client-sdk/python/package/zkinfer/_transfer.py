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
from ._connection import Connection, pause
from .errors import AnswerError, ArtifactError, CallError
from .v1 import artifact_pb2

Source = bytes | str | os.PathLike[str]

ONNX = "application/onnx"
NPY = "application/x-npy"
OCTET_STREAM = "application/octet-stream"

# Largest proof, statement or key that is downloaded.
MAX_DOCUMENT_BYTES = 64 << 20
# Bytes of a chunk: well below the service's limit.
CHUNK_BYTES = 512 << 10
# Bytes that one call sends, so that each call can have a deadline.
CALL_BYTES = 16 << 20

_NAME = re.compile(r"tenants/[^/]+/artifacts/([0-9a-f]{64})")


def upload(connection: Connection, source: Source, media_type: str) -> str:
    """Uploads bytes, or a file by its path; answers the artifact's name. Bytes that the service has are not sent."""
    size, digest = _measure(source)
    request = artifact_pb2.BeginUploadRequest(
        size_bytes=size, blake3=digest, media_type=media_type, request_id=str(uuid.uuid4())
    )
    session = connection.call(connection.artifacts.BeginUpload, request)
    failures = 0
    while not session.complete:
        before = session.committed_bytes
        try:
            session = connection.once(connection.artifacts.WriteChunks, _chunks(source, session.upload, before))
        except CallError as error:
            failures += 1
            pause(connection.options.retry, failures, error)
            session = connection.call(connection.artifacts.GetUpload, artifact_pb2.GetUploadRequest(upload=session.upload))
        if session.committed_bytes > before:
            failures = 0
        elif not session.complete and failures == 0:
            raise AnswerError("the service takes no more bytes of the upload, but does not call it complete")
    return str(session.artifact.name)


def _open(source: Source) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")


def _measure(source: Source) -> tuple[int, bytes]:
    hasher, size = _verify.Blake3(), 0
    with _open(source) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            size += len(chunk)
    return size, hasher.digest()


def _chunks(source: Source, upload_name: str, offset: int) -> Iterator[artifact_pb2.WriteChunksRequest]:
    end = offset + CALL_BYTES
    with _open(source) as file:
        file.seek(offset)
        while offset < end and (data := file.read(min(CHUNK_BYTES, end - offset))):
            yield artifact_pb2.WriteChunksRequest(
                upload=upload_name, write_offset=offset, data=data, crc32c=_verify.crc32c(data)
            )
            upload_name = ""
            offset += len(data)


def download(connection: Connection, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Downloads an artifact of at most `limit` bytes, and compares its hash with its name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise AnswerError(f"{name!r} is no artifact's name")
    data = bytearray()
    failures = 0
    while True:
        before = len(data)
        try:
            _receive(connection, name, limit, data)
            break
        except CallError as error:
            failures = 1 if len(data) > before else failures + 1
            pause(connection.options.retry, failures, error)
    hasher = _verify.Blake3()
    hasher.update(bytes(data))
    if hasher.digest().hex() != match.group(1):
        raise ArtifactError(f"artifact {name} arrived damaged: its hash is not the one in its name")
    return bytes(data)


def _receive(connection: Connection, name: str, limit: int, data: bytearray) -> None:
    """Appends what is missing."""
    request = artifact_pb2.ReadArtifactRequest(name=name, read_offset=len(data))
    with connection.stream(connection.artifacts.ReadArtifact, request) as stream:
        while (chunk := stream.next(connection.options.silence)) is not None:
            if chunk.offset != len(data):
                raise ArtifactError(f"artifact {name} arrived damaged: a chunk is out of place")
            if _verify.crc32c(chunk.data) != chunk.crc32c:
                raise ArtifactError(f"artifact {name} arrived damaged: the checksum of a chunk is wrong")
            if len(data) + len(chunk.data) > limit:
                raise ArtifactError(f"artifact {name} has more than {limit} bytes")
            data += chunk.data
