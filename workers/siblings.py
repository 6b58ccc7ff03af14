"""What the processes of one worker, which share the processors of a machine, know of each other.

A STAT image is taken as soon as one of them is free. Then the others let it go first: between two stages of a routine
image they rest until it is through. An image that is the only one takes all cores.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from config.settings import Workers

LONGEST_SECONDS = 2.0
"""So long a routine image gives way at most, all its stages together: one that hangs holds up nobody."""
_LOOK_SECONDS = 0.005
_PLACES = 64
_ROUTINE, _STAT = 1, 2


OF_THIS_WORKER = mmap.mmap(-1, _PLACES)
"""Memory that a process shares with the children that it forks: a worker's parent must import this module."""


def have_cores_of_their_own(workers: Workers) -> bool:
    """Whether the processes of a worker on the CPU take no core from each other; with ``threads`` 0 each takes all."""
    return 0 < workers.threads * (workers.processes or 2) <= len(os.sched_getaffinity(0))


@dataclass(slots=True)
class Siblings:
    """One process of a worker; ``shared`` has a byte for each, which says whether it works at an image, and if STAT."""

    shared: mmap.mmap | bytearray = field(default_factory=lambda: bytearray(_PLACES))
    index: int = 0
    pause: Callable[[float], None] = time.sleep
    longest: float = LONGEST_SECONDS
    left: float = 0.0

    def __post_init__(self) -> None:
        """Whoever was here before is dead, whatever it was working at."""
        self.shared[self.index % _PLACES] = 0

    @contextmanager
    def working(self, stat: bool) -> Iterator[None]:
        """Work at an image, of a STAT study or not, until the block ends; it may be within such a block."""
        left, before = self.left, self.shared[self.index % _PLACES]
        self.left = 0.0 if stat else self.longest
        self.shared[self.index % _PLACES] = _STAT if stat else _ROUTINE
        try:
            yield
        finally:
            self.left, self.shared[self.index % _PLACES] = left, before

    @property
    def rest(self) -> bool:
        """Whether no other process works at an image just now."""
        own = self.index % _PLACES
        return not any(self.shared[:own]) and not any(self.shared[own + 1 :])

    def give_way(self) -> None:
        """Wait while another process works at a STAT image, and this one at a routine one."""
        while self.left > 0 and _STAT in self.shared[:]:
            self.pause(_LOOK_SECONDS)
            self.left -= _LOOK_SECONDS
