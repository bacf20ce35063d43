"""Batches of the real service, watched."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import zkinfer
from daemon import Daemon, Proxy
from zkinfer import JobRequest, JobState
from zkinfer.aio import AsyncClient


def requests(model: zkinfer.Model, samples: np.ndarray) -> list[JobRequest]:
    """Two that succeed, and one whose input is too short."""
    return [JobRequest(model, samples[:1]), JobRequest(model, samples[:1, :29]), JobRequest(model, samples[1:2])]


def check(events: list[zkinfer.BatchEvent], names: list[str]) -> None:
    """Each end was told once, and the last event is of the whole batch as it ended."""
    ended = [name for event in events for name in event.ended]
    assert sorted(ended) == sorted(names)
    last = events[-1].batch
    assert (last.total, last.succeeded, last.failed, last.is_final) == (3, 2, 1, True)
    assert not any(event.batch.is_final for event in events[:-1])


def test_a_batch_is_watched_through_a_connection_that_is_cut(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    proxy = Proxy(daemon.port)
    try:
        with zkinfer.Client(proxy.address) as client:
            jobs = client.submit_batch(requests(model, samples))
            batch = client.batch(jobs[0].batch)
            assert {job.batch for job in jobs} == {batch.name} and batch.total == 3
            events = []
            for event in batch.watch(timeout=120):
                events.append(event)
                if len(events) in (1, 2):
                    proxy.cut()
            check(events, [job.name for job in jobs])
            assert proxy.n_accepted >= 2
            # A batch that has ended tells so in its first event.
            assert len(list(batch.watch())) == 1
            assert batch.refresh().is_final and not batch.is_final
            assert {job.name for job in batch.jobs()} == {job.name for job in client.jobs(batch=batch)} == {job.name for job in jobs}
            assert [job.name for job in batch.jobs(states=[JobState.FAILED])] == [jobs[1].name]
    finally:
        proxy.close()


def test_a_batch_is_waited_for_and_cancelled(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    jobs = client.submit_batch([JobRequest(model, samples[i : i + 1]) for i in range(4)])
    batch = client.batch(jobs[0].batch)
    with pytest.raises(TimeoutError, match=batch.name):
        batch.wait(timeout=0.05)
    for job in batch.jobs():
        job.cancel()
    seen: list[zkinfer.BatchEvent] = []
    ended = batch.wait(progress=seen.append)
    assert ended.is_final and ended.cancelled >= 3
    assert seen[-1].batch.cancelled == ended.cancelled
    with pytest.raises(zkinfer.NotFoundError):
        client.batch("tenants/default/batches/00000000-0000-7000-8000-000000000000")


def test_a_batch_is_watched_with_asyncio(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    async def run(proxy: Proxy) -> None:
        async with AsyncClient(proxy.address) as client:
            jobs = await client.submit_batch(requests(model, samples))
            batch = await client.batch(jobs[0].batch)
            events = []
            async for event in batch.watch(timeout=120):
                events.append(event)
                if len(events) == 1:
                    proxy.cut()
            check(events, [job.name for job in jobs])
            again: list[zkinfer.BatchEvent] = []
            assert (await batch.wait(progress=again.append)).is_final and len(again) == 1
            assert {job.name async for job in batch.jobs()} == {job.name for job in jobs}
            assert [job.name async for job in client.jobs(batch=batch, states=[JobState.FAILED])] == [jobs[1].name]

    proxy = Proxy(daemon.port)
    try:
        asyncio.run(run(proxy))
        assert proxy.n_accepted >= 2
    finally:
        proxy.close()
