"""The commands of ``docs/backup.md``, run as they stand there, against a node under load whose machine is then lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.whole_node import WholeNode, wait_and_count, whole_node
from tests.orthanc import wait_until

pytestmark = pytest.mark.timeout(900)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backup.md"
SEED = 5
OF_THE_OTHER = {"sqlite": r"^(pg_|createdb|dropdb)", "postgresql": r"sqlite"}


def commands(heading: str, database: str) -> list[str]:
    """The commands below a heading of the page, without those for the other database."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [re.sub(r"sudo -u \S+ ", "", line.strip()) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not re.search(OF_THE_OTHER[database], line)]


def test_the_page_has_commands_for_both_databases() -> None:
    assert sum("rsync" in line for line in commands("Back up a running node", "sqlite")) == 2
    assert any(line.startswith("sqlite3") for line in commands("Back up a running node", "sqlite"))
    assert any(line.startswith("pg_dump") for line in commands("Back up a running node", "postgresql"))
    assert any(line.startswith("pg_restore") for line in commands("Restore", "postgresql"))


@pytest.mark.peer("postgres")
@pytest.mark.peer("redis-server")
@pytest.mark.peer("rsync")
@pytest.mark.peer("sqlite3")
@pytest.mark.parametrize(
    "database",
    [pytest.param("sqlite", marks=pytest.mark.campaign), pytest.param("postgresql", marks=pytest.mark.nightly)],
)
def test_a_lost_machine_comes_back_from_its_backup(folder: Path, database: str) -> None:
    """What came after the backup is sent again, as the page says; then every image has its results, once."""
    images = [image(SEED, number) for number in range(24)]
    with whole_node(folder / "run", database) as whole:
        (folder / "etc" / "pleura").mkdir(parents=True)
        (folder / "backup").mkdir()
        modalities = Modalities([whole.node.port], iter(images), 2, 0.3)
        modalities.start()
        wait_until(lambda: len(modalities.accepted) >= 8, "images accepted", pause=0.05)
        wait_until(lambda: whole.database.counts()["delivery sent"], "a first result", pause=0.05)
        before = list(modalities.accepted)
        _run("Back up a running node", whole, folder, database)
        modalities.finish(120)
        _lose(whole)
        _run("Restore", whole, folder, database)
        whole.node.start()
        again = Modalities([whole.node.port], iter(images), 2)
        again.start()
        again.finish(120)
        held, faults = wait_and_count(whole, [each.patient for each in images], 200)
    # What arrived after the backup is received anew: the same objects, with the times of their new jobs.
    in_backup = {each.patient for each in before}
    anew = {
        f"{patient}: {uid} was sent again with other bytes"
        for uid, patient in held.different.items()
        if patient not in in_backup
    }
    assert [fault for fault in faults if fault not in anew] == []


def _lose(whole: WholeNode) -> None:
    """The machine is gone: its processes, its store, its database."""
    whole.node.kill_everything()
    shutil.rmtree(whole.store)
    whole.store.mkdir()
    whole.database.drop()


def _run(heading: str, whole: WholeNode, folder: Path, database: str) -> None:
    """Run the commands with this node's own paths and names in place of those of the page."""
    environment, name = os.environ.copy(), "pleura"
    if whole.database.url is not None:
        parts = urlsplit(whole.database.url)
        name = parts.path.strip("/")
        environment |= {"PGHOST": parse_qs(parts.query)["host"][0], "PGUSER": "postgres"}
    paths = {
        "/var/lib/pleura": str(whole.store),
        "/var/backups/pleura": str(folder / "backup"),
        "/etc/pleura": str(folder / "etc" / "pleura"),
    }
    for given in commands(heading, database):
        line = given
        for path, ours in paths.items():
            line = line.replace(path, ours)
        line = re.sub(r"--owner=\w+", "", line)
        line = re.sub(r"(?<=dump )pleura$|(?<= )pleura$|(?<=--dbname=)pleura", name, line)
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
