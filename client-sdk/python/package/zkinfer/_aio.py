"""The connection of the asyncio client: calls with deadlines, and who drives steps on it, as in `_blocking`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import grpc
import grpc.aio

from . import _steps
from ._connection import Options, Route, Services, route, silence_error
from ._steps import Step, Steps, Walk
from .errors import CallError, call_error

P = ParamSpec("P")
T = TypeVar("T")


def _open(way: Route) -> Any:
    if way.credentials is None:
        return grpc.aio.insecure_channel(way.target, way.arguments)
    return grpc.aio.secure_channel(way.target, way.credentials, way.arguments)


class Connection(Services):
    """A channel, and who drives steps on it, awaiting. Made and used inside one event loop."""

    def __init__(self, address: str, options: Options) -> None:
        self._channel = _open(route(address, options))
        super().__init__(self._channel, options)

    async def close(self) -> None:
        """Ends all calls."""
        await self._channel.close()

    async def run(self, steps: Callable[Concatenate[Services, P], Steps[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does all steps; answers their result."""
        walk = Walk(steps(self, *args, **kwargs))
        async for _ in self._walk(walk):
            raise AssertionError("steps that tell are for `items`")
        return walk.result

    def items(self, steps: Callable[Concatenate[Services, P], Steps[None]], *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
        """What the steps tell, as it comes."""
        return self._walk(Walk(steps(self, *args, **kwargs)))

    async def call(self, method: Callable[..., Any], message: object) -> Any:
        """A call that may be repeated: a read, or a creation with its request id."""
        return await self.run(_steps.call, method, message)

    async def _walk(self, walk: Walk[T]) -> AsyncIterator[Any]:
        with contextlib.closing(_Performer(self)) as performer:
            while walk.step is not None:
                if isinstance(walk.step, _steps.Tell):
                    yield walk.step.item
                    walk.done(None)
                    continue
                try:
                    outcome = await performer.perform(walk.step)
                except CallError as error:
                    walk.failed(error)
                else:
                    walk.done(outcome)


class _Performer:
    """Does steps one after the other; holds the call that gives many answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream: Any = None

    def close(self) -> None:
        """Ends the call that gives many answers."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def perform(self, step: Step) -> Any:
        """What comes of a step."""
        options, metadata = self._connection.options, self._connection.metadata
        if isinstance(step, _steps.Ask):
            try:
                return await step.method(step.message, timeout=options.timeout, metadata=metadata)
            except grpc.RpcError as error:
                raise call_error(cast(grpc.Call, error)) from error
        if isinstance(step, _steps.Open):
            self.close()
            self._stream = step.method(step.message, metadata=metadata)
            return None
        if isinstance(step, _steps.Receive):
            return await self._receive(step.seconds)
        if isinstance(step, _steps.Pause):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, _steps.Compute), "the caller is told by whoever walks"
        return await asyncio.to_thread(step.function)

    async def _receive(self, seconds: float) -> Any:
        try:
            answer = await asyncio.wait_for(self._stream.read(), max(seconds, 0.0))
        except asyncio.TimeoutError as error:
            raise silence_error(seconds) from error
        except grpc.RpcError as error:
            raise call_error(cast(grpc.Call, error)) from error
        return None if answer is grpc.aio.EOF else answer
