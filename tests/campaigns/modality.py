"""Modalities: each sends an image until it was told success, and only then forgets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from tests.campaigns.images import Image
from tests.fuzz.peer import CR, EXPLICIT, BrokenError, Peer

_PAUSE_AFTER_FAILURE = 0.3


class Modalities:
    """Several senders at once, on associations of a few images each, that share what there is to send."""

    def __init__(
        self,
        ports: list[int],
        images: Iterator[Image],
        senders: int = 3,
        pause: float = 0.0,
        each: int = 3,
        hosts: tuple[str, ...] = ("127.0.0.1",),
        patience: float = 60,
    ) -> None:
        """``pause``: seconds between two images of one sender; ``each``: images an association; ``patience``: seconds
        that a sender waits for an answer. Of several ``hosts`` a sender calls the next one after a failure.

        ``accepted_at`` will hold the time of day of each patient's success, ``seconds`` how long each answer took.
        """
        self._images, self._pause, self._each = images, pause, each
        self._hosts, self._patience = hosts, patience
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.accepted: list[Image] = []
        self.accepted_at: dict[str, float] = {}
        self.seconds: list[float] = []
        self.answers: dict[int, int] = {}
        self._threads = [
            threading.Thread(target=self._send, args=(ports[index % len(ports)], index), daemon=True)
            for index in range(senders)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float, *, stop: bool = False) -> None:
        """Wait until all was accepted; with ``stop`` take nothing new, but see each image through that was begun."""
        if stop:
            self._ended.set()
        for thread in self._threads:
            thread.join(seconds)
            if thread.is_alive():
                raise AssertionError(f"after {seconds:.0f} s a modality still waits for success")

    def failures(self) -> int:
        """How often an image was not answered 0x0000 and was sent again."""
        return sum(count for status, count in self.answers.items() if status)

    def _send(self, port: int, at: int) -> None:
        peer: Peer | None = None
        left = 0
        while (image := self._next()) is not None:
            while True:
                try:
                    if peer is None:
                        host = self._hosts[at % len(self._hosts)]
                        contexts, seconds = [(CR, EXPLICIT)], self._patience
                        peer = Peer(port, contexts, calling="SENDER", seconds=seconds, host=host)
                        left = self._each
                    begun = time.monotonic()
                    status = peer.store(image.data_set, image.sop_instance).status
                except (OSError, BrokenError, KeyError):
                    peer, status = None, -1
                with self._lock:
                    self.answers[status] = self.answers.get(status, 0) + 1
                if status == 0:
                    break
                at += 1
                time.sleep(_PAUSE_AFTER_FAILURE)
            with self._lock:
                self.accepted.append(image)
                self.accepted_at[image.patient] = time.time()
                self.seconds.append(time.monotonic() - begun)
            left -= 1
            if left == 0 and peer is not None:
                peer.close()
                peer = None
            time.sleep(self._pause)
        if peer is not None:
            peer.close()

    def _next(self) -> Image | None:
        with self._lock:
            return None if self._ended.is_set() else next(self._images, None)
