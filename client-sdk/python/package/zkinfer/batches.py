"""Batches: jobs that were admitted together, and are watched together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import _operations, _requests, _watch
from ._blocking import Connection
from ._connection import Services
from .jobs import Job
from .progress import JobState, moment
from .v1 import proof_pb2


@dataclass(frozen=True)
class BatchFacts:
    """How far a batch is, as it was when the service answered: how many of its jobs are in each state."""

    # `tenants/{tenant}/batches/{uuid}`.
    name: str
    create_time: datetime
    # All of them.
    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int

    @staticmethod
    def _fields(message: proof_pb2.Batch) -> dict[str, Any]:
        return {
            "name": message.name,
            "create_time": moment(message.create_time),
            "total": message.total,
            "queued": message.queued,
            "running": message.running,
            "succeeded": message.succeeded,
            "failed": message.failed,
            "cancelled": message.cancelled,
            "expired": message.expired,
        }

    @property
    def is_final(self) -> bool:
        """Whether all its jobs have ended, well or not."""
        return self.succeeded + self.failed + self.cancelled + self.expired == self.total

    def _watched(self, services: Services) -> _watch.Subject:
        return _Ends(self.name, services.proofs.WatchBatch)

    def _listing(self, states: Sequence[JobState]) -> proof_pb2.ListJobsRequest:
        return _requests.list_jobs(states=states, batch=self.name)


@dataclass(frozen=True)
class BatchEvent:
    """Something that happened to a batch. The first of a watch tells how things are."""

    # As it is now.
    batch: BatchFacts
    # Names of the jobs that have ended since the event before; in the first, of all that have ended. Each is told once.
    ended: tuple[str, ...]

    @classmethod
    def _of(cls, message: proof_pb2.BatchEvent) -> BatchEvent:
        return cls(BatchFacts(**BatchFacts._fields(message.batch)), tuple(message.ended))


@dataclass
class _Ends:
    """A batch that is watched. Each stream begins with all that have ended; the caller is told of each once."""

    name: str
    method: Callable[..., Any]
    _told: set[str] = field(default_factory=set)
    _last: proof_pb2.Batch | None = None

    def request(self) -> object:
        """The same for every stream."""
        return proof_pb2.WatchBatchRequest(name=self.name)

    def take(self, event: proof_pb2.BatchEvent) -> proof_pb2.BatchEvent | None:
        """The event without ends that were told before; None if it repeats what is known."""
        ended = [job for job in event.ended if job not in self._told]
        is_known = event.batch == self._last and not ended
        self._told.update(ended)
        self._last = event.batch
        return None if is_known else proof_pb2.BatchEvent(batch=event.batch, ended=ended)

    def is_over(self, event: proof_pb2.BatchEvent) -> bool:
        """Whether the end of each job was told. Those that were deleted were told, and do not count any more."""
        batch = event.batch
        n_ended = batch.succeeded + batch.failed + batch.cancelled + batch.expired
        return n_ended == batch.total <= len(self._told)


@dataclass(frozen=True)
class Batch(BatchFacts):
    """Jobs that were admitted together, as they were when the service answered. They go on whatever happens to the client."""

    _connection: Connection = field(repr=False, compare=False)

    @classmethod
    def _of(cls, connection: Connection, message: proof_pb2.Batch) -> Batch:
        return cls(**cls._fields(message), _connection=connection)

    def refresh(self) -> Batch:
        """The batch as it is now."""
        return Batch._of(self._connection, self._connection.run(_operations.get_batch, self.name))

    def jobs(self, states: Sequence[JobState] = ()) -> Iterator[Job]:
        """Its jobs, newest first, or those in one of some states. To cancel the batch, cancel each: one that has ended stays as it is."""
        messages = self._connection.items(_operations.list_jobs, None, self._listing(states))
        return (Job._of(self._connection, message) for message in messages)

    def watch(self, timeout: float | None = None) -> Iterator[BatchEvent]:
        """How far the batch is whenever that has changed, until all its jobs have ended; TimeoutError after so many seconds."""
        watched = self._watched(self._connection)
        return map(BatchEvent._of, self._connection.items(_watch.watch, watched, _watch.monotonic_deadline(timeout)))

    def wait(self, timeout: float | None = None, progress: Callable[[BatchEvent], None] | None = None) -> Batch:
        """Waits until all jobs have ended, well or not, and answers the batch so; TimeoutError after so many seconds."""
        for event in self.watch(timeout):
            if progress is not None:
                progress(event)
        return self.refresh()
