"""Of the schedulers on one database one acts: who it is, how another one takes over, and who gives way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from db import scheduler_lease
from db.database import Database
from db.engine import connect
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.builders import NOON, FakeClock
from workers.leadership import LEASE_SECONDS, Leadership


class Site:
    """Two schedulers on one database, with one clock."""

    def __init__(self, folder: Path) -> None:
        engine = connect(f"sqlite:///{folder}/test.sqlite")
        migrate(engine)
        self.database = Database(engine, NO_RULES)
        self.clock = FakeClock(NOON)
        self.one, self.two = self.scheduler("one/scheduler/0/a"), self.scheduler("two/scheduler/0/b")

    def scheduler(self, name: str) -> Leadership:
        return Leadership(self.database, name, self.clock, lambda: (self.clock() - NOON).total_seconds())

    def after(self, seconds: float) -> tuple[bool, bool]:
        """Whether each holds the lease so much later, the first one asked first."""
        self.clock.pass_by(seconds=seconds)
        return self.one.hold(), self.two.hold()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.database.engine.dispose()


def test_one_acts_and_goes_on_while_it_renews(site: Site) -> None:
    assert [site.after(seconds) for seconds in (0, 1, 5, 5, 5, 5)] == [(True, False)] * 6


def test_another_one_takes_over_when_it_dies(site: Site) -> None:
    assert site.after(0) == (True, False)
    site.clock.pass_by(seconds=LEASE_SECONDS - 1)
    assert not site.two.hold()
    site.clock.pass_by(seconds=3)
    assert site.two.hold()
    assert not site.one.acts
    assert not site.one.hold(), "one that was away stands by when it comes back"


def test_one_that_ends_lets_another_act_at_once(site: Site) -> None:
    site.after(0)
    site.one.release()
    site.clock.pass_by(seconds=3)
    assert site.two.hold()


def test_one_that_starts_again_at_its_place_acts_at_once(site: Site) -> None:
    site.after(0)
    site.database.write(scheduler_lease.release, "one/scheduler/0/")
    assert site.scheduler("one/scheduler/0/c").hold()


def test_one_that_the_broker_does_not_answer_gives_way_only_to_another(site: Site) -> None:
    site.one.hold()
    site.one.give_up()
    assert site.one.acts, "there is nobody else"
    site.two.hold()
    site.one.give_up()
    assert site.after(4) == (False, True)
    site.clock.pass_by(seconds=31)
    site.two.release()
    assert site.one.hold()


def test_a_lease_from_before_the_clock_was_set_back_keeps_nobody_waiting(site: Site) -> None:
    site.after(0)
    site.clock.pass_by(hours=-1)
    site.two.ask_at = None
    assert site.two.hold()
