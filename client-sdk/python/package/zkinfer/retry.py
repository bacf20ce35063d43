"""Repeats calls that may be repeated: reads, and creations, which carry a request id. The rules are in docs/CLIENTS.md."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import grpc

from .errors import CallError


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast a call is repeated while the service is unavailable.

    Repeated is what was answered UNAVAILABLE or DEADLINE_EXCEEDED, what broke on its way, and what the service asks to repeat (RetryInfo)
    after ABORTED or RESOURCE_EXHAUSTED. Where the service says when another attempt makes sense, none is made earlier; if that does not fit
    `budget` any more, the call fails at once, with `retry_after` in its error.
    """

    # Attempts in all; 1: none is repeated.
    attempts: int = 6
    # Seconds before the second attempt; doubles each time.
    first_wait: float = 0.2
    # Longest wait in seconds that the service did not ask for.
    longest_wait: float = 5.0
    # Seconds that may be spent on all waits of a call together, and on attempts that ran out of their time; of a transfer or a watch, since
    # it last got on.
    budget: float = 60.0

    def wait_after(self, failures: int, error: CallError, waited: float = 0.0, share: float | None = None) -> float | None:
        """Seconds to wait after so many failures in a row, of which `error` is the last, and so many seconds of waits; None: give up.

        What the service asks for is the least, of the own back-off a half: `share`, from 0 to 1 and random unless given, spreads the
        clients that failed at the same time.
        """
        if failures >= self.attempts or not error.is_transient:
            return None
        share = random.random() if share is None else share
        left = self.budget - waited
        if error.retry_after is None:
            back_off = min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait)
            wait = back_off * (1 + share) / 2
            return wait if wait <= left else None
        # The spread is not worth giving up for.
        return min(error.retry_after * (1 + share / 4), left) if error.retry_after <= left else None


class Repetition:
    """The failures of one call in a row, and how long was waited after them."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.reset()

    def reset(self) -> None:
        """The call got on: what failed before counts no more."""
        self._failures, self._waited, self._began = 0, 0.0, time.monotonic()

    def fail(self) -> bool:
        """Counts a failure that no error stands for; answers whether another attempt is due."""
        self._failures += 1
        self._began = time.monotonic()
        return self._failures < self._policy.attempts

    def wait_after(self, error: CallError) -> float:
        """Counts a failure; answers how many seconds to wait before the next attempt, and raises the error where that has no sense."""
        self._failures += 1
        now = time.monotonic()
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._waited += max(now - self._began, 0.0)
        wait = self._policy.wait_after(self._failures, error, self._waited)
        if wait is None:
            raise error
        self._waited += wait
        # When the next attempt begins.
        self._began = now + wait
        return wait
