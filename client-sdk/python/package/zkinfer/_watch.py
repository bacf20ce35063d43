"""Following a model or a job: every event once, in order, through broken connections."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ._connection import SILENT, Services
from ._steps import Open, Pause, Receive, Steps, Tell
from .errors import AnswerError, CallError
from .retry import Repetition

# Seconds before a stream that the service ended is opened again.
PAUSE_AFTER_END = 0.1


class Subject(Protocol):
    """What is watched, and how far."""

    @property
    def name(self) -> str:
        """Its full name."""

    @property
    def method(self) -> Callable[..., Any]:
        """Opens a stream of it."""

    def request(self) -> object:
        """Asks for what the caller has not seen."""

    def take(self, event: Any) -> Any | None:
        """What the caller is told of an event; None: nothing new. Raises AnswerError for a gap."""

    def is_over(self, event: Any) -> bool:
        """Whether nothing follows an event that was told."""


@dataclass
class Sequence:
    """A model or a job. A snapshot or a sign of life repeats the last sequence; every other event has the next one."""

    name: str
    method: Callable[..., Any]
    # Makes the request, from a sequence; 0: from now on.
    request_from: Callable[[int], object]
    is_final: Callable[[int], bool]
    # Sequence seen last; None before the first event.
    last: int | None = None

    def request(self) -> object:
        """From the sequence that is due."""
        return self.request_from(0 if self.last is None else self.last + 1)

    def take(self, event: Any) -> Any | None:
        """The event, if the caller has not seen it."""
        is_first = self.last is None
        is_repetition = event.WhichOneof("detail") in ("snapshot", "heartbeat")
        if self.last is not None:
            expected = self.last if is_repetition else self.last + 1
            if event.sequence != expected:
                raise AnswerError(f"event {event.sequence} of {self.name} came instead of {expected}")
        self.last = event.sequence
        return event if is_first or not is_repetition else None

    def is_over(self, event: Any) -> bool:
        """Whether the state is final."""
        return self.is_final(event.state)


def watch(services: Services, subject: Subject, deadline: float | None) -> Steps[None]:
    """Tells the events, the first a snapshot; ends after the final one. `deadline`, in time.monotonic(): TimeoutError."""
    options = services.options
    repetition = Repetition(options.retry)
    while True:
        try:
            yield Open(subject.method, subject.request())
            while (event := (yield Receive(_seconds_left(options.silence, deadline)))) is not None:
                repetition.reset()
                told = subject.take(event)
                if told is None:
                    continue
                yield Tell(told)
                if subject.is_over(told):
                    return
            if not repetition.fail():
                raise AnswerError(f"the stream of {subject.name} ends again and again before its subject does")
            yield Pause(PAUSE_AFTER_END)
        except CallError as error:
            is_last = error.reason == SILENT and _has_passed(deadline)
            wait = 0.0 if is_last else repetition.wait_after(error)
            if is_last or _has_passed(deadline, wait):
                raise TimeoutError(f"{subject.name} is not final yet") from error
            yield Pause(wait)


def monotonic_deadline(timeout: float | None) -> float | None:
    """In time.monotonic()."""
    return None if timeout is None else time.monotonic() + timeout


def _seconds_left(silence: float, deadline: float | None) -> float:
    return silence if deadline is None else min(silence, deadline - time.monotonic())


def _has_passed(deadline: float | None, seconds: float = 0.0) -> bool:
    """Whether it will have, in so many seconds."""
    return deadline is not None and time.monotonic() + seconds >= deadline
