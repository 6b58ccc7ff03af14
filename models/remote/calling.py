"""Asking the server of a network: within a time limit, again where it cannot be reached, and not while it is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from models.endpoint import EndpointSpec
from models.runtime.executor import ModelUnavailableError

T = TypeVar("T")
Ask = Callable[[float], T]
"""Asks the server once, within so many seconds."""

FIRST_WAIT_SECONDS = 0.25
"""Wait before the second attempt; it doubles with each further one."""
PAUSE_SECONDS = 5.0
"""A server that could not be reached is not asked for so long: the next jobs need not wait for it, too."""


class NotReachedError(Exception):
    """The server did not answer, or is busy: another attempt may help. The message says what happened."""


class Caller:
    """The attempts at one server."""

    def __init__(
        self,
        endpoint: EndpointSpec,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._sleep = sleep
        self._away: tuple[float, str] | None = None

    def ask(self, once: Ask[T]) -> T:
        """What ``once`` gives, at the first attempt that reaches the server.

        Raises:
            ModelUnavailableError: none did, or an earlier question has just failed.
        """
        if self._away is not None and self._clock() < self._away[0]:
            raise ModelUnavailableError(self._away[1])
        deadline, wait = self._clock() + self._endpoint.timeout_seconds, FIRST_WAIT_SECONDS
        for attempt in range(1, self._endpoint.attempts + 1):
            try:
                found = once(deadline - self._clock())
            except NotReachedError as error:
                if attempt == self._endpoint.attempts or self._clock() + wait >= deadline:
                    said = f"the model server {self._endpoint.url} cannot be used: {error}"
                    self._away = self._clock() + PAUSE_SECONDS, said
                    raise ModelUnavailableError(said) from error
                self._sleep(wait)
                wait *= 2
            else:
                self._away = None
                return found
        raise AssertionError("the last attempt returns or raises")
