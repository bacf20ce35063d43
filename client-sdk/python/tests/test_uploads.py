"""Uploads whose bytes the real service has lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import zkinfer
from daemon import Daemon
from zkinfer import _aio, _blocking, _transfer
from zkinfer._connection import Options, Services

CALL_BYTES = 1 << 20


class Loss:
    """Removes what the service has of an upload, once, before the second call that sends of it."""

    def __init__(self, daemon: Daemon, services: Services) -> None:
        self._uploads = daemon.uploads
        self._write: Callable[..., Any] = services.artifacts.WriteChunks
        self.n_calls = 0
        services.artifacts.WriteChunks = self._lose_and_write

    def _lose_and_write(self, *arguments: Any, **options: Any) -> Any:
        self.n_calls += 1
        if self.n_calls == 2:
            files = list(self._uploads.iterdir())
            assert CALL_BYTES in {file.stat().st_size for file in files}
            for file in files:
                file.unlink()
        return self._write(*arguments, **options)


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """`noise` takes two calls."""
    monkeypatch.setattr(_transfer, "CALL_BYTES", CALL_BYTES)


def noise(seed: int) -> bytes:
    """Bytes that the service does not have yet, where no other test has the seed."""
    return np.random.default_rng(seed).bytes(CALL_BYTES + 1000)


def test_an_upload_begins_again(daemon: Daemon) -> None:
    connection = _blocking.Connection(daemon.address, Options())
    loss = Loss(daemon, connection)
    name = connection.run(_transfer.upload, noise(1), _transfer.OCTET_STREAM)
    assert connection.run(_transfer.download, name) == noise(1)
    # All but a first part, what was refused, and all in two parts.
    assert loss.n_calls == 4
    connection.close()


def test_an_upload_begins_again_with_asyncio(daemon: Daemon) -> None:
    async def run() -> None:
        connection = _aio.Connection(daemon.address, Options())
        loss = Loss(daemon, connection)
        name = await connection.run(_transfer.upload, noise(2), _transfer.OCTET_STREAM)
        assert await connection.run(_transfer.download, name) == noise(2)
        assert loss.n_calls == 4
        await connection.close()

    asyncio.run(run())


def test_an_upload_that_may_not_be_repeated_is_given_up(daemon: Daemon) -> None:
    connection = _blocking.Connection(daemon.address, Options(retry=zkinfer.RetryPolicy(attempts=1)))
    loss = Loss(daemon, connection)
    with pytest.raises(zkinfer.AbortedError) as caught:
        connection.run(_transfer.upload, noise(3), _transfer.OCTET_STREAM)
    assert (caught.value.reason, loss.n_calls) == ("UPLOAD_STARTS_AGAIN", 2)
    connection.close()
