"""The client for asyncio, against the real service and a scripted one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import grpc
import numpy as np
import pytest

import zkinfer
from conftest import CANCER
from daemon import Daemon, Proxy
from scripted import Scripted, run_out_of_time
from zkinfer import JobRequest, JobState, _aio, _transfer
from zkinfer._connection import Options
from zkinfer.aio import AsyncClient, AsyncJob
from zkinfer.v1 import proof_pb2

T = TypeVar("T")

POLICY = zkinfer.RetryPolicy(attempts=3, first_wait=0.001, longest_wait=0.01, budget=5.0)
IMAGE = np.zeros(4, dtype=np.uint8)
QUEUED, RUNNING, SUCCEEDED = 1, 2, 4


@pytest.fixture
def service() -> Iterator[Scripted]:
    """A scripted service."""
    scripted = Scripted()
    yield scripted
    scripted.stop()


async def collect(items: AsyncIterator[T]) -> list[T]:
    """All of them."""
    return [item async for item in items]


def test_proofs_are_made_side_by_side_and_listed(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    async def run() -> None:
        async with AsyncClient(daemon.address) as client:
            seen: list[zkinfer.Progress] = []
            single = client.prove("cancer", samples[:1], context="aio", progress=seen.append)
            batch = await client.submit_batch([JobRequest(model, samples[i : i + 1], labels={"test": "aio"}) for i in range(2)])
            proof, *proofs = await asyncio.gather(single, *(job.wait() for job in batch))
            zkinfer.verify(proof, context="aio", expected_input=samples[:1])
            assert await client.verify_remote(proof, context="aio") == proof.statement
            assert seen[-1].fraction == 1.0
            assert [made.job for made in proofs] == [job.name for job in batch]
            listed = await collect(client.jobs(labels={"test": "aio"}, states=[JobState.SUCCEEDED], page_size=1))
            assert {job.name for job in listed} == {job.name for job in batch}
            assert await client.job(batch[0].name) == await batch[0].refresh()
            with pytest.raises(zkinfer.VerifyError, match="OTHER_NONCE"):
                await client.verify_remote(proof)

    asyncio.run(run())


def test_a_model_is_registered_and_its_key_read(daemon: Daemon, model: zkinfer.Model) -> None:
    async def run() -> None:
        async with AsyncClient(daemon.address) as client:
            source = CANCER / "model_uint8_per_channel_qdq.onnx"
            made = await client.register_model(source, model_id="aio")
            assert (await made.key()).model_commitment == made._ready().model_commitment
            assert made.name in {each.name for each in await collect(client.list_models(page_size=1))}
            assert await client.model("aio") == await made.refresh()
            assert (await client.estimate("aio")).layer_count == 3
            with pytest.raises(zkinfer.AlreadyExistsError):
                await client.register_model(source, model_id="aio", weights="public")
            await made.delete()
            with pytest.raises(zkinfer.NotFoundError):
                await made.refresh()

    asyncio.run(run())


def test_jobs_are_cancelled_fail_and_time_out_with_the_reason(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    async def run() -> None:
        async with AsyncClient(daemon.address) as client:
            first, second = await client.submit_batch([JobRequest(model, samples[:1]), JobRequest(model, samples[1:2])])
            with pytest.raises(TimeoutError, match=second.name):
                await second.wait(timeout=0.05)
            await second.cancel()
            with pytest.raises(zkinfer.EndedError) as caught:
                await second.wait()
            assert caught.value.reason == "CANCELLED"
            await second.delete()
            with pytest.raises(zkinfer.NotFoundError):
                await second.refresh()
            assert (await first.wait()).statement.outputs
            with pytest.raises(zkinfer.EndedError) as caught:
                await client.prove(model, np.zeros(300_000, dtype=np.uint8))
            assert caught.value.reason == "SHAPE_MISMATCH"
            with pytest.raises(zkinfer.NotFoundError):
                await client.model("nothing")

    asyncio.run(run())


def test_a_watch_goes_on_after_the_connection_was_cut(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    async def run(proxy: Proxy) -> list[zkinfer.JobEvent]:
        async with AsyncClient(proxy.address) as client:
            job = await client.submit("cancer", samples[6:7])
            events: list[zkinfer.JobEvent] = []
            async for event in job.watch(timeout=120):
                events.append(event)
                if len(events) == 1:
                    proxy.cut()
            assert (await job.wait()).statement.outputs
            assert proxy.n_accepted >= 2
            return events

    proxy = Proxy(daemon.port)
    try:
        events = asyncio.run(run(proxy))
    finally:
        proxy.close()
    assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))
    assert events[-1].state is JobState.SUCCEEDED


def test_a_creation_is_repeated_with_the_same_request_id(service: Scripted) -> None:
    async def run() -> None:
        async with AsyncClient(service.address, retry=POLICY, token="t-1") as client:
            service.proofs.errors = [(grpc.StatusCode.UNAVAILABLE, None), (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.0)]
            await client.submit("m", IMAGE)
            service.proofs.errors = [(grpc.StatusCode.UNAVAILABLE, 30.0)]
            with pytest.raises(zkinfer.UnavailableError, match="try again in 30 s"):
                await client.submit("m", IMAGE)
            service.proofs.errors = [(grpc.StatusCode.INTERNAL, None)]
            with pytest.raises(zkinfer.InternalError) as caught:
                await client.submit("m", IMAGE)
            assert (caught.value.reason, caught.value.details.request_id) == ("SCRIPTED", "r-1")

    asyncio.run(run())
    assert len(service.proofs.requests) == 5
    assert len({request.request_id for request in service.proofs.requests[:3]}) == 1
    assert service.proofs.metadata["authorization"] == "Bearer t-1"


def test_transfers_are_resumed_where_they_broke_off(service: Scripted) -> None:
    data = bytes(range(256)) * 10_000
    name = service.artifacts.store(data)
    service.artifacts.breaks = [_transfer.CHUNK_BYTES]
    service.artifacts.read_breaks = [3000]

    async def run() -> bytes:
        connection = _aio.Connection(service.address, Options(retry=POLICY))
        await connection.run(_transfer.upload, data, _transfer.NPY)
        downloaded = await connection.run(_transfer.download, name)
        await connection.close()
        return downloaded

    assert asyncio.run(run()) == data == bytes(service.artifacts.data)
    assert service.artifacts.offsets == [0, _transfer.CHUNK_BYTES]
    assert service.artifacts.reads == [0, 3000]


def test_an_upload_that_gets_on_outlasts_calls_that_run_out_of_their_time(service: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    data = run_out_of_time(service, monkeypatch)

    async def run() -> None:
        connection = _aio.Connection(service.address, Options(retry=POLICY))
        await connection.run(_transfer.upload, data, _transfer.NPY)
        await connection.close()

    asyncio.run(run())
    assert bytes(service.artifacts.data) == data
    assert service.artifacts.offsets == list(range(0, len(data), 1000))


def test_files_are_not_read_in_the_event_loop(service: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    readers: list[int] = []
    opened = _transfer._open

    def open_and_tell(source: _transfer.Source) -> BinaryIO:
        readers.append(threading.get_ident())
        return opened(source)

    monkeypatch.setattr(_transfer, "_open", open_and_tell)

    async def run() -> None:
        connection = _aio.Connection(service.address, Options(retry=POLICY))
        await connection.run(_transfer.upload, tmp_path / "file", _transfer.ONNX)
        await connection.close()

    asyncio.run(run())
    # Once for the hash, once to be sent.
    assert len(readers) == 2 and threading.get_ident() not in readers


def watched(service: Scripted, *streams: list[tuple[int, int, str]]) -> list[int]:
    """The sequences that a watch over these streams gives."""
    service.proofs.streams = list(streams)

    async def run() -> list[int]:
        async with AsyncClient(service.address, retry=POLICY) as client:
            job = await client.submit("m", IMAGE)
            return [event.sequence for event in await collect(job.watch())]

    return asyncio.run(run())


def test_a_watch_resumes_tells_a_gap_and_gives_up(service: Scripted) -> None:
    first = [(3, QUEUED, "snapshot"), (4, RUNNING, ""), (4, RUNNING, "heartbeat")]
    second = [(4, RUNNING, "snapshot"), (5, SUCCEEDED, "result")]
    assert watched(service, first, second) == [3, 4, 5]
    with pytest.raises(zkinfer.AnswerError, match="came instead of 4"):
        watched(service, [(3, QUEUED, "snapshot"), (5, RUNNING, "")])
    with pytest.raises(zkinfer.AnswerError, match="again and again"):
        watched(service, [], [], [])


def test_a_silent_stream_is_opened_anew(service: Scripted) -> None:
    service.proofs.streams = [[(1, QUEUED, "snapshot")], [(1, QUEUED, "snapshot"), (2, SUCCEEDED, "result")]]
    service.proofs.n_silent = 1

    async def run() -> list[int]:
        connection = _aio.Connection(service.address, Options(retry=POLICY, silence=1.0))
        job = AsyncJob._of(connection, proof_pb2.Job(name="tenants/t/jobs/j"))
        sequences = [event.sequence for event in await collect(job.watch())]
        await connection.close()
        return sequences

    assert asyncio.run(run()) == [1, 2]
    assert [request.from_sequence for request in service.proofs.requests] == [0, 2]
