"""Following a model or a job: every event once, in order, through broken connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._connection import SILENT, Connection, pause
from .errors import AnswerError, CallError

# Seconds before a stream that the service ended is opened again.
PAUSE_AFTER_END = 0.1


@dataclass
class Sequence:
    """Which event is due. A snapshot or a sign of life repeats the last sequence; every other event has the next one."""

    name: str
    # Sequence seen last; None before the first event.
    last: int | None = None

    @property
    def next_wanted(self) -> int:
        """Where a stream is to resume; 0: from now on."""
        return 0 if self.last is None else self.last + 1

    def is_new(self, event: Any) -> bool:
        """Whether the caller has not seen this event; raises AnswerError for a gap."""
        is_first = self.last is None
        is_repetition = event.WhichOneof("detail") in ("snapshot", "heartbeat")
        if self.last is not None:
            expected = self.last if is_repetition else self.last + 1
            if event.sequence != expected:
                raise AnswerError(f"event {event.sequence} of {self.name} came instead of {expected}")
        self.last = event.sequence
        return is_first or not is_repetition


@dataclass(frozen=True)
class Subject:
    """What is watched: its name, how a stream of it is opened, and which states are final."""

    name: str
    method: Callable[..., Any]
    # Makes the request, from a sequence.
    request: Callable[[int], object]
    is_final: Callable[[int], bool]


def watch(connection: Connection, subject: Subject, deadline: float | None) -> Iterator[Any]:
    """The events as they come, the first a snapshot; ends after the final one. `deadline`, in time.monotonic(): TimeoutError."""
    sequence = Sequence(subject.name)
    failures = 0
    while True:
        try:
            for event, is_new in _stream(connection, subject, sequence, deadline):
                failures = 0
                if not is_new:
                    continue
                yield event
                if subject.is_final(event.state):
                    return
            failures += 1
            if failures >= connection.options.retry.attempts:
                raise AnswerError(f"the stream of {subject.name} ends again and again before its subject does")
            time.sleep(PAUSE_AFTER_END)
        except CallError as error:
            failures += 1
            pause(connection.options.retry, failures, error)


def _stream(connection: Connection, subject: Subject, sequence: Sequence, deadline: float | None) -> Iterator[tuple[Any, bool]]:
    with connection.stream(subject.method, subject.request(sequence.next_wanted)) as stream:
        while (event := _next(connection, stream, subject.name, deadline)) is not None:
            yield event, sequence.is_new(event)


def _next(connection: Connection, stream: Any, name: str, deadline: float | None) -> Any:
    try:
        return stream.next(seconds_left(connection.options.silence, deadline))
    except CallError as error:
        check_deadline(name, deadline, error)
        raise


def seconds_left(silence: float, deadline: float | None) -> float:
    """How long the next event is waited for."""
    return silence if deadline is None else min(silence, deadline - time.monotonic())


def check_deadline(name: str, deadline: float | None, error: CallError) -> None:
    """Raises TimeoutError if the wait that failed so was the caller's last."""
    if deadline is not None and time.monotonic() >= deadline and error.reason == SILENT:
        raise TimeoutError(f"{name} is not final yet") from error
