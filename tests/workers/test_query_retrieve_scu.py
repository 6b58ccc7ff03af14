"""An archive whose responses have no end: each comes in time, and none is the last."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from pydicom.dataset import Dataset

from workers.destinations.destination_kind import PeerError
from workers.query_retrieve_scu import MOST_MATCHES, Archive


class Endless:
    """An association on which every response is *pending*."""

    is_established = True
    aborted = False

    def send_c_find(self, *_arguments: object) -> Iterator[tuple[Dataset, Dataset]]:
        yield from itertools.repeat((pending(), Dataset()))

    send_c_move = send_c_find

    def abort(self) -> None:
        self.aborted = True


def pending() -> Dataset:
    status = Dataset()
    status.Status = 0xFF00
    return status


def test_responses_without_end_are_left() -> None:
    minutes = itertools.count()
    asked: tuple[tuple[Callable[[Archive], object], str], ...] = (
        (lambda archive: archive.study_uids(date(2026, 3, 1), "CR"), f"more than {MOST_MATCHES} matches"),
        (lambda archive: archive.pull("1.2", "1.2.3"), "for 60 minutes"),
    )
    for ask, why in asked:
        association: Any = Endless()
        with pytest.raises(PeerError, match=why):
            ask(Archive(association, "PLEURA", lambda: 60.0 * next(minutes)))
        assert association.aborted
