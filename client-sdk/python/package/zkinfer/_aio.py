"""Connection, transfers and watches for asyncio: the rules are those of `_connection`, `_transfer` and `_watch`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from . import _transfer, _watch
from ._connection import Options, call_metadata, route, silence_error
from ._transfer import MAX_DOCUMENT_BYTES, Source
from .errors import AnswerError, CallError, call_error
from .v1 import artifact_pb2, artifact_pb2_grpc, model_pb2_grpc, proof_pb2_grpc, system_pb2_grpc

T = TypeVar("T")


class Connection:
    """A channel, its services, and how calls are made on it. Made and used inside one event loop."""

    def __init__(self, address: str, options: Options) -> None:
        self.options = options
        self._metadata = call_metadata(options.credential)
        way = route(address, options)
        if way.credentials is None:
            self._channel: Any = grpc.aio.insecure_channel(way.target, way.arguments)
        else:
            self._channel = grpc.aio.secure_channel(way.target, way.credentials, way.arguments)
        self.artifacts: Any = artifact_pb2_grpc.ArtifactServiceStub(self._channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(self._channel)
        self.proofs: Any = proof_pb2_grpc.ProofServiceStub(self._channel)
        self.system: Any = system_pb2_grpc.SystemServiceStub(self._channel)

    async def close(self) -> None:
        """Ends all calls."""
        await self._channel.close()

    async def once(self, method: Callable[..., Awaitable[T]], message: object) -> T:
        """One attempt at a call that gives one answer."""
        try:
            return await method(message, timeout=self.options.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise call_error(cast(grpc.Call, error)) from error

    async def call(self, method: Callable[..., Awaitable[T]], message: object) -> T:
        """A call that may be repeated: a read, or a creation with its request id."""
        failures = 0
        while True:
            try:
                return await self.once(method, message)
            except CallError as error:
                failures += 1
                await self.pause(failures, error)

    async def pause(self, failures: int, error: CallError) -> None:
        """Waits before the next attempt; raises the error where another has no sense."""
        wait = self.options.retry.wait_after(failures, error)
        if wait is None:
            raise error
        await asyncio.sleep(wait)

    @contextlib.asynccontextmanager
    async def stream(self, method: Callable[..., Any], message: object) -> AsyncIterator[Stream]:
        """A call that gives many answers; ended with the block."""
        call = method(message, metadata=self._metadata)
        try:
            yield Stream(call)
        finally:
            call.cancel()


class Stream:
    """Answers of a call, each waited for with a deadline."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self, seconds: float) -> Any | None:
        """The next answer; None at the end. Silence for so many seconds: UnavailableError."""
        try:
            answer = await asyncio.wait_for(self._call.read(), max(seconds, 0.0))
        except asyncio.TimeoutError as error:
            raise silence_error(seconds) from error
        except grpc.RpcError as error:
            raise call_error(cast(grpc.Call, error)) from error
        return None if answer is grpc.aio.EOF else answer


async def upload(connection: Connection, source: Source, media_type: str) -> str:
    """Uploads bytes, or a file by its path; answers the artifact's name. Bytes that the service has are not sent."""
    request = await asyncio.to_thread(_transfer.begin_upload, source, media_type)
    session = await connection.call(connection.artifacts.BeginUpload, request)
    progress = _transfer.UploadProgress()
    while not session.complete:
        before = session.committed_bytes
        try:
            session = await connection.once(connection.artifacts.WriteChunks, _transfer.chunks(source, session.upload, before))
        except CallError as error:
            await connection.pause(progress.fail(), error)
            request_left = artifact_pb2.GetUploadRequest(upload=session.upload)
            session = await connection.call(connection.artifacts.GetUpload, request_left)
        progress.check(before, session)
    return str(session.artifact.name)


async def download(connection: Connection, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Downloads an artifact of at most `limit` bytes, and compares its hash with its name."""
    received = _transfer.Received(name, limit)
    failures = 0
    while True:
        before = len(received.data)
        try:
            async with connection.stream(connection.artifacts.ReadArtifact, received.request()) as stream:
                while (chunk := await stream.next(connection.options.silence)) is not None:
                    received.append(chunk)
            return received.finish()
        except CallError as error:
            failures = 1 if len(received.data) > before else failures + 1
            await connection.pause(failures, error)


async def watch(connection: Connection, subject: _watch.Subject, deadline: float | None) -> AsyncIterator[Any]:
    """The events as they come, the first a snapshot; ends after the final one. `deadline`, in time.monotonic(): TimeoutError."""
    sequence = _watch.Sequence(subject.name)
    failures = 0
    while True:
        try:
            async with connection.stream(subject.method, subject.request(sequence.next_wanted)) as stream:
                while (event := await _next(connection, stream, subject.name, deadline)) is not None:
                    failures = 0
                    if not sequence.is_new(event):
                        continue
                    yield event
                    if subject.is_final(event.state):
                        return
            failures += 1
            if failures >= connection.options.retry.attempts:
                raise AnswerError(f"the stream of {subject.name} ends again and again before its subject does")
            await asyncio.sleep(_watch.PAUSE_AFTER_END)
        except CallError as error:
            failures += 1
            await connection.pause(failures, error)


async def _next(connection: Connection, stream: Stream, name: str, deadline: float | None) -> Any:
    try:
        return await stream.next(_watch.seconds_left(connection.options.silence, deadline))
    except CallError as error:
        _watch.check_deadline(name, deadline, error)
        raise


def monotonic_deadline(timeout: float | None) -> float | None:
    """In time.monotonic()."""
    return None if timeout is None else time.monotonic() + timeout
