"""The short forms of the campaigns in which things die, and what their counting rests on."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from config.settings import load as settings_of
from tests.campaigns import chaos, clock, failover, full_disk, load, power_cut, receiving_cut
from tests.campaigns.destination import Held
from tests.campaigns.disk import Disk, DiskError
from tests.campaigns.outcome import Outcome
from tests.campaigns.whole_node import COMPLETE, SEG, SR_3D, faults_of, settings_text
from workers.durable_files import write_durably

pytestmark = pytest.mark.timeout(900)

SEED = 5


def quiet(text: str) -> None:
    """Nobody looks."""


@pytest.fixture
def disks(tmp_path: Path) -> None:
    """Skip where no disk can be mounted: not only rights are needed, a container may have no loop device."""
    try:
        Disk(tmp_path / "trial", 16).unmount()
    except DiskError as error:
        pytest.skip(str(error))


def test_what_is_lost_doubled_or_changed_is_counted() -> None:
    held = Held()
    assert faults_of(held, []) == []
    held.objects["a"] = Counter(COMPLETE)
    held.objects["b"] = Counter({SEG: 1, SR_3D: 1})
    held.objects["c"] = Counter({SEG: 2, SR_3D: 2})
    held.objects["nobody"] = Counter({SEG: 1})
    held.different["1.2.3"] = "a"
    assert faults_of(held, ["a", "b", "c"]) == [
        f"b lacks {{'{SR_3D}': 1}}",
        f"c has too many: {{'{SEG}': 1}}",
        "nobody was never accepted and has results",
        "a: 1.2.3 was sent again with other bytes",
    ]


def test_a_seed_draws_the_same_events_and_each_event_comes() -> None:
    names = sorted(chaos.events_of("postgresql"))
    drawn = chaos.sequence(Random(SEED), names, 2 * len(names))
    assert drawn == chaos.sequence(Random(SEED), names, 2 * len(names))
    assert Counter(drawn) == Counter(dict.fromkeys(names, 2))


def test_as_many_kills_are_drawn_as_were_asked_for_and_other_events_among_them() -> None:
    names = sorted(chaos.events_of("sqlite"))
    drawn = chaos.until_kills(Random(SEED), names, 100)
    kills = [name for name in drawn if name.startswith("kill")]
    assert (len(kills), drawn[-1]) == (100, kills[-1])
    assert set(drawn) == set(names)
    assert drawn == chaos.until_kills(Random(SEED), names, 100)


def test_the_settings_of_a_campaign_are_settings_of_a_node(tmp_path: Path) -> None:
    """Here, and not in a campaign that takes minutes."""
    config = tmp_path / "pleura.toml"
    urls = {"database": "postgresql+psycopg://postgres@/test", "broker": None}
    limits = {"minimum_free_bytes": full_disk.LEAST_FREE}
    config.write_text(
        settings_text("[models]", tmp_path, 11112, {"port": 104}, urls, store=limits, listener=load.LIMITS)
    )
    assert settings_of(config).destinations[0].port == 104


@pytest.mark.campaign
def test_a_cut_loses_what_was_not_synced_and_nothing_else(disks: None, tmp_path: Path) -> None:
    """The counter-proof: a file without fsync, and a name without fsync of its folder, do not outlive the power."""
    disk = Disk(tmp_path / "disk", 16)
    try:
        write_durably(disk.folder / "whole", [b"synced"])
        (disk.folder / "empty").write_bytes(b"not synced")
        with (disk.folder / "before").open("wb") as file:
            file.write(b"synced")
            file.flush()
            os.fsync(file.fileno())
        (disk.folder / "before").rename(disk.folder / "after")
        disk.cut_power()
        assert (disk.folder / "whole").read_bytes() == b"synced"
        assert not (disk.folder / "empty").exists() or (disk.folder / "empty").read_bytes() == b""
        assert (disk.folder / "before").exists()
        assert not (disk.folder / "after").exists()
    finally:
        disk.unmount()


@pytest.mark.campaign
@pytest.mark.peer("postgres")
@pytest.mark.peer("redis-server")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_short_chaos(folder: Path, database: str) -> None:
    events = len(chaos.events_of(database))
    check(chaos.run(folder / "run", SEED, events, database, 1.0, quiet), 20)


@pytest.mark.campaign
@pytest.mark.peer("postgres")
@pytest.mark.peer("redis-server")
def test_short_failover(folder: Path) -> None:
    check(failover.run(folder / "run", SEED, 1, True, quiet), 10)


@pytest.mark.peer("postgres")
@pytest.mark.parametrize(
    "database",
    [pytest.param("sqlite", marks=pytest.mark.campaign), pytest.param("postgresql", marks=pytest.mark.nightly)],
)
def test_short_power_cuts(disks: None, folder: Path, database: str) -> None:
    check(power_cut.run(folder, SEED, 2, database, quiet, longest=3), 10)


@pytest.mark.campaign
def test_a_short_power_cut_while_eight_associations_send(disks: None, folder: Path) -> None:
    check(receiving_cut.run(folder, SEED, 1, 8, quiet, longest=2), 20)


@pytest.mark.campaign
def test_short_full_disk(disks: None, folder: Path) -> None:
    check(full_disk.run(folder, SEED, 2, "sqlite", quiet), 20)


@pytest.mark.campaign
def test_short_clock(folder: Path) -> None:
    check(clock.run(folder, SEED, 5, "sqlite", quiet), 20)


def check(outcome: Outcome, least: int) -> None:
    """Nothing was found, and something was done."""
    assert outcome.faults == [], outcome.text()
    assert int(outcome.figures["images accepted"]) >= least
