"""How far a registration or a job is, and why one failed."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from .v1 import progress_pb2


class ModelState(enum.Enum):
    """State of a model. READY, FAILED and RETIRED are final."""

    COMPILING = 1
    READY = 2
    FAILED = 3
    RETIRED = 4
    # Of a newer service.
    UNKNOWN = 0

    @classmethod
    def _missing_(cls, value: object) -> ModelState:
        return cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self in (ModelState.READY, ModelState.FAILED, ModelState.RETIRED)


class JobState(enum.Enum):
    """State of a job. SUCCEEDED, FAILED, CANCELLED and EXPIRED are final."""

    QUEUED = 1
    RUNNING = 2
    CANCELLING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6
    EXPIRED = 7
    # Of a newer service.
    UNKNOWN = 0

    @classmethod
    def _missing_(cls, value: object) -> JobState:
        return cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED)


@dataclass(frozen=True)
class Stage:
    """One stage, for example `layer`, done for each of `total` layers."""

    name: str
    total: int
    done: int
    # Time spent in it so far.
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far the work is."""

    # Stages in order. Empty until work starts.
    stages: tuple[Stage, ...]
    # 0 to 1, weighted by estimated cost. Decreases only when an attempt begins anew, or what a task gave is made again.
    fraction: float
    # Seconds left; None until it can be told.
    eta_seconds: float | None
    # Items ahead in the queue; -1 once it has left the queue.
    queue_position: int
    # Name of the running stage.
    phase: str
    # Which attempt this is, from 1; 0 while it has not started.
    attempt: int

    @classmethod
    def _of(cls, message: progress_pb2.Progress) -> Progress:
        stages = (Stage(each.name, each.total, each.done, seconds(each.elapsed)) for each in message.stages)
        return cls(
            stages=tuple(stages),
            fraction=message.fraction,
            eta_seconds=seconds(message.eta) if message.HasField("eta") else None,
            queue_position=message.queue_position,
            phase=message.phase,
            attempt=message.attempt,
        )


@dataclass(frozen=True)
class Failure:
    """Why a registration or a job failed."""

    # Stable, UPPER_SNAKE, such as `SHAPE_MISMATCH`, `DEADLINE` or `CANCELLED`.
    reason: str
    # For people.
    message: str
    # The same request may succeed another time.
    is_retryable: bool
    # Attempts made.
    attempts: int
    # Stage in which it failed; empty if it is not known.
    stage: str

    def __str__(self) -> str:
        stage = f" in stage {self.stage}" if self.stage else ""
        return f"{self.reason}{stage}, {self.message}"

    @classmethod
    def _of(cls, message: progress_pb2.Failure) -> Failure:
        return cls(message.reason, message.message, message.retryable, message.attempts, message.stage)


def seconds(duration: object) -> float:
    """A duration of the wire, in seconds."""
    return float(getattr(duration, "seconds", 0)) + float(getattr(duration, "nanos", 0)) / 1e9


def moment(timestamp: Timestamp) -> datetime:
    """A time of the wire."""
    return datetime.fromtimestamp(timestamp.seconds + timestamp.nanos / 1e9, tz=timezone.utc)
