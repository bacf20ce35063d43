"""The connection of the blocking client: calls with deadlines, and who drives steps on it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import grpc

from . import _steps
from ._connection import Options, Route, Services, route, silence_error
from ._steps import Step, Steps, Walk
from .errors import CallError, call_error

P = ParamSpec("P")
T = TypeVar("T")


def _open(way: Route) -> grpc.Channel:
    if way.credentials is None:
        plain: grpc.Channel = grpc.insecure_channel(way.target, way.arguments)
        return plain
    channel: grpc.Channel = grpc.secure_channel(way.target, way.credentials, way.arguments)
    return channel


class Connection(Services):
    """A channel, and who drives steps on it, blocking."""

    def __init__(self, address: str, options: Options) -> None:
        self._channel = _open(route(address, options))
        super().__init__(self._channel, options)

    def close(self) -> None:
        """Ends all calls."""
        self._channel.close()

    def run(self, steps: Callable[Concatenate[Services, P], Steps[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does all steps; answers their result."""
        walk = Walk(steps(self, *args, **kwargs))
        for _ in self._walk(walk):
            raise AssertionError("steps that tell are for `items`")
        return walk.result

    def items(self, steps: Callable[Concatenate[Services, P], Steps[None]], *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        """What the steps tell, as it comes."""
        return self._walk(Walk(steps(self, *args, **kwargs)))

    def call(self, method: Callable[..., Any], message: object) -> Any:
        """A call that may be repeated: a read, or a creation with its request id."""
        return self.run(_steps.call, method, message)

    def _walk(self, walk: Walk[T]) -> Iterator[Any]:
        with contextlib.closing(_Performer(self)) as performer:
            while walk.step is not None:
                if isinstance(walk.step, _steps.Tell):
                    yield walk.step.item
                    walk.done(None)
                    continue
                try:
                    outcome = performer.perform(walk.step)
                except CallError as error:
                    walk.failed(error)
                else:
                    walk.done(outcome)


class _Performer:
    """Does steps one after the other; holds the call that gives many answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream: Stream | None = None

    def close(self) -> None:
        """Ends the call that gives many answers."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def perform(self, step: Step) -> Any:
        """What comes of a step."""
        options, metadata = self._connection.options, self._connection.metadata
        if isinstance(step, _steps.Ask):
            try:
                return step.method(step.message, timeout=options.timeout, metadata=metadata)
            except grpc.RpcError as error:
                raise call_error(cast(grpc.Call, error)) from error
        if isinstance(step, _steps.Open):
            self.close()
            self._stream = Stream(step.method(step.message, metadata=metadata))
            return None
        if isinstance(step, _steps.Receive):
            assert self._stream is not None, "a call is opened before its answers are received"
            return self._stream.next(step.seconds)
        if isinstance(step, _steps.Pause):
            return time.sleep(step.seconds)
        assert isinstance(step, _steps.Compute), "the caller is told by whoever walks"
        return step.function()


class Stream:
    """Answers of a call, each waited for with a deadline."""

    def __init__(self, call: Any) -> None:
        self._call = call
        # Of all waits: the timer of one may end the call after its answer has come, and then the next wait finds it ended.
        self._silent = threading.Event()

    def close(self) -> None:
        """Ends the call."""
        self._call.cancel()

    def next(self, seconds: float) -> Any | None:
        """The next answer; None at the end. Silence for so many seconds ends the call: UnavailableError."""

        def end() -> None:
            self._silent.set()
            self._call.cancel()

        timer = threading.Timer(max(seconds, 0.0), end)
        timer.daemon = True
        timer.start()
        try:
            return next(self._call, None)
        except grpc.RpcError as error:
            if self._silent.is_set():
                raise silence_error(seconds) from error
            raise call_error(cast(grpc.Call, error)) from error
        finally:
            timer.cancel()
