"""What the client and its asyncio variant do alike, as generators of steps: they decide, and whoever drives them waits, blocking or not.

A generator yields a step and is sent what came of it, or thrown the CallError that did. What it returns is the result. The drivers are
`_blocking.Connection` and `_aio.Connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._connection import Services
from .errors import CallError
from .retry import Repetition

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One attempt at a call that gives one answer: the answer."""

    method: Callable[..., Any]
    message: object


@dataclass(frozen=True)
class Open:
    """A call that gives many answers is begun, in place of the one before: nothing."""

    method: Callable[..., Any]
    message: object


@dataclass(frozen=True)
class Receive:
    """The next of many answers, None at the end; silence for so many seconds ends the call: UnavailableError."""

    seconds: float


@dataclass(frozen=True)
class Pause:
    """Nothing, after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Compute:
    """What the function gives; it takes long, or reads files."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Tell:
    """The caller gets an item, and goes on when it wants more: nothing."""

    item: Any


Step = Ask | Open | Receive | Pause | Compute | Tell
Steps = Generator[Step, Any, T]


class Walk(Generic[T]):
    """Steps as they are done: `step` is the one that is due, None at the end, when there is a `result`."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.step: Step | None = None
        self._result: list[T] = []
        self._advance(lambda: next(steps))

    def done(self, outcome: Any) -> None:
        """The step gave this."""
        self._advance(lambda: self._steps.send(outcome))

    def failed(self, error: CallError) -> None:
        """The step gave nothing; raises the error if it is not taken."""
        self._advance(lambda: self._steps.throw(error))

    def _advance(self, advance: Callable[[], Step]) -> None:
        try:
            self.step = advance()
        except StopIteration as end:
            self.step = None
            self._result = [end.value]

    @property
    def result(self) -> T:
        """What the steps return."""
        (result,) = self._result
        return result


def call(services: Services, method: Callable[..., Any], message: object) -> Steps[Any]:
    """A call that may be repeated: a read, or a creation with its request id. Its answer."""
    repetition = Repetition(services.options.retry)
    while True:
        try:
            return (yield Ask(method, message))
        except CallError as error:
            yield Pause(repetition.wait_after(error))
