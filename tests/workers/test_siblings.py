"""Processes of a worker let a STAT image go first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from config.settings import Workers
from workers.siblings import LONGEST_SECONDS, OF_THIS_WORKER, Siblings, have_cores_of_their_own


def pair() -> tuple[Siblings, Siblings, list[float]]:
    """Two processes of one worker, and what they have waited."""
    shared, waited = bytearray(64), list[float]()
    one, other = (Siblings(shared, index, waited.append) for index in (0, 1))
    return one, other, waited


def test_a_routine_image_waits_until_a_stat_image_is_through() -> None:
    stat, routine, waited = pair()

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            doing.__exit__(None, None, None)

    routine.pause = wait
    doing = stat.working(True)
    doing.__enter__()
    with routine.working(False):
        routine.give_way()
    assert len(waited) == 3


def test_a_process_that_analyses_a_stat_image_in_between_goes_on_to_give_way() -> None:
    one, other, waited = pair()
    with one.working(False):
        with one.working(True):
            pass
        with other.working(True):
            one.give_way()
    assert sum(waited) >= LONGEST_SECONDS


def test_nobody_waits_for_a_routine_image_and_a_stat_image_for_none() -> None:
    one, other, waited = pair()
    with one.working(False), other.working(False):
        one.give_way()
    with one.working(True), other.working(True):
        one.give_way()
    assert waited == []


def test_a_stat_image_that_hangs_holds_up_nobody_for_long() -> None:
    stat, routine, waited = pair()
    with stat.working(True), routine.working(False):
        routine.give_way()
        routine.give_way()
    assert LONGEST_SECONDS <= sum(waited) < LONGEST_SECONDS + 0.01


def test_what_a_dead_process_was_working_at_counts_no_longer_when_it_is_replaced() -> None:
    stat, routine, waited = pair()
    stat.working(True).__enter__()
    Siblings(stat.shared, 0)
    with routine.working(False):
        routine.give_way()
    assert waited == []


def test_whether_the_others_rest_is_known() -> None:
    one, other, _ = pair()
    assert one.rest
    with one.working(False):
        assert one.rest
        assert not other.rest
        with other.working(True):
            assert not one.rest
    assert other.rest


def test_nobody_rests_where_each_process_has_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    known = [Workers(), Workers(threads=4), Workers(threads=4, processes=3), Workers(threads=1, processes=8)]
    assert [have_cores_of_their_own(each) for each in known] == [False, True, False, True]


def test_children_know_of_each_other() -> None:
    child = os.fork()
    if not child:
        OF_THIS_WORKER[3] = 1
        os._exit(0)
    os.waitpid(child, 0)
    assert OF_THIS_WORKER[3] == 1
    OF_THIS_WORKER[3] = 0


def test_the_memory_is_made_before_the_fork() -> None:
    code = "import sys, workers.celery; sys.exit('workers.siblings' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
