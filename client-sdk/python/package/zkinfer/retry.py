"""Repeats calls that may be repeated: reads, and creations, which carry a request id."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import CallError


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast a call is repeated while the service is unavailable.

    Repeated is what was answered UNAVAILABLE, and what the service asks to repeat (RetryInfo) after ABORTED or RESOURCE_EXHAUSTED.
    """

    # Attempts in all; 1: none is repeated.
    attempts: int = 6
    # Seconds before the second attempt; doubles each time.
    first_wait: float = 0.2
    # Longest wait in seconds. A service that asks for more is not asked again.
    longest_wait: float = 5.0

    def wait_after(self, failures: int, error: CallError, share: float | None = None) -> float | None:
        """Seconds to wait after so many failures in a row, of which `error` is the last; None: give up.

        What the service asks for is the least, of the own back-off a half: `share`, from 0 to 1 and random unless given, spreads the
        clients that failed at the same time.
        """
        if failures >= self.attempts or not error.is_transient:
            return None
        share = random.random() if share is None else share
        if error.retry_after is not None:
            return None if error.retry_after > self.longest_wait else error.retry_after * (1 + share / 4)
        back_off = min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait)
        return back_off * (1 + share) / 2


class Repetition:
    """The failures of one call in a row."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def reset(self) -> None:
        """The call got on: what failed before counts no more."""
        self._failures = 0

    def fail(self) -> bool:
        """Counts a failure that no error stands for; answers whether another attempt is due."""
        self._failures += 1
        return self._failures < self._policy.attempts

    def wait_after(self, error: CallError) -> float:
        """Counts a failure; answers how many seconds to wait before the next attempt, and raises the error where that has no sense."""
        self._failures += 1
        wait = self._policy.wait_after(self._failures, error)
        if wait is None:
            raise error
        return wait
