"""Following a model or a job: every event once, in order, through broken connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._connection import Connection, pause, silence_error
from .errors import AnswerError, CallError

# Seconds before a stream that the service ended is opened again.
_PAUSE_AFTER_END = 0.1


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

    def is_new(self, sequence: int, is_repetition: bool) -> bool:
        """Whether the caller has not seen this event; raises AnswerError for a gap."""
        is_first = self.last is None
        if self.last is not None:
            expected = self.last if is_repetition else self.last + 1
            if sequence != expected:
                raise AnswerError(f"event {sequence} of {self.name} came instead of {expected}")
        self.last = sequence
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
            time.sleep(_PAUSE_AFTER_END)
        except CallError as error:
            failures += 1
            pause(connection.options.retry, failures, error)


def _stream(connection: Connection, subject: Subject, sequence: Sequence, deadline: float | None) -> Iterator[tuple[Any, bool]]:
    with connection.stream(subject.method, subject.request(sequence.next_wanted)) as stream:
        while (event := _next(connection, stream, subject.name, deadline)) is not None:
            is_repetition = event.WhichOneof("detail") in ("snapshot", "heartbeat")
            yield event, sequence.is_new(event.sequence, is_repetition)


def _next(connection: Connection, stream: Any, name: str, deadline: float | None) -> Any:
    silence = connection.options.silence
    left = silence if deadline is None else min(silence, deadline - time.monotonic())
    try:
        return stream.next(left)
    except CallError as error:
        if deadline is not None and time.monotonic() >= deadline and error.reason == silence_error(0).reason:
            raise TimeoutError(f"{name} is not final yet") from error
        raise
