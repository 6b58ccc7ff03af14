"""Calls to a model server: a time limit, retries, and a pause while it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from models.endpoint import EndpointSpec
from models.runtime.executor import ModelLoadError, ModelUnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")
Ask = Callable[[float], T]
"""Asks the server once, within so many seconds."""

FIRST_WAIT_SECONDS = 0.25
"""Wait before the second attempt; it doubles with each further one."""
PAUSE_SECONDS = 5.0
"""A server that could not be reached is not asked for so long: the next jobs need not wait for it, too."""


class NotReachedError(Exception):
    """The server did not answer, or is busy: another attempt may help. The message says what happened."""


class OtherModelError(ModelUnavailableError):
    """The server runs another model than the manifest pins."""


RECHECK_SECONDS = 60.0
"""A server is asked again which model it runs when the last time is longer ago, or it has failed since."""


class Pin(Generic[T]):
    """What a server's model was found to be, once it was the pinned one."""

    def __init__(self, check: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        """``check`` asks the server, and raises OtherModelError where it runs something else."""
        self._check = check
        self._clock = clock
        self._known: tuple[float, T] | None = None

    @property
    def holds(self) -> bool:
        """Whether the server was asked, and nothing has happened since."""
        return self._known is not None

    def get(self) -> T:
        """What ``check`` gave, a moment ago or now."""
        if self._known is None or self._clock() - self._known[0] >= RECHECK_SECONDS:
            self._known = None
            found = self._check()
            self._known = self._clock(), found
        return self._known[1]

    def get_at_start(self, name: str) -> None:
        """Ask when the model ``name`` is loaded; a server that is away is asked again when the first image comes.

        Raises:
            ModelLoadError: it runs something else.
        """
        try:
            self.get()
        except OtherModelError as error:
            raise ModelLoadError(str(error)) from error
        except ModelUnavailableError as error:
            log.warning("%s: %s; its images wait until it can", name, error)

    @contextmanager
    def dropped_on_failure(self) -> Iterator[None]:
        """Ask again after a failure inside."""
        try:
            yield
        except (NotReachedError, ModelUnavailableError):
            self._known = None
            raise


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
                    message = f"the model server {self._endpoint.url} cannot be used: {error}"
                    self._away = self._clock() + PAUSE_SECONDS, message
                    raise ModelUnavailableError(message) from error
                self._sleep(wait)
                wait *= 2
            else:
                self._away = None
                return found
        raise AssertionError("the last attempt returns or raises")
