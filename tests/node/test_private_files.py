"""What the command `pleura` writes is closed to others, whatever the umask of whoever starts it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.private_files import forbidden_bits
from db.engine import connect, migrate
from node.dicom.instance_store import InstanceStore
from workers.durable_files import write_durably

ROOT = Path(__file__).resolve().parents[2]
USERS = (20001, 20002)
READS_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def pleura(store: Path, *arguments: str, umask: int = 0, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell with this umask does, perhaps as another user whose group is root's.

    That user may read everything, for the code of this checkout may lie in a home folder, but write only what is open.
    """
    other = ["setpriv", f"--reuid={user}", "--regid=0", "--clear-groups", *READS_ALL] if user is not None else []
    return subprocess.run(
        [*other, sys.executable, "-P", "-m", "node.cli.main", *arguments],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PLEURA_STORE__FOLDER": str(store), "HOME": str(store)},
        input="a long enough password\na long enough password\n",
        umask=umask,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("umask", [0, 0o022])
def test_a_command_makes_private_files(tmp_path: Path, umask: int) -> None:
    done = pleura(tmp_path / "var", "user", "add", "ann", "--role", "admin", umask=umask)
    assert done.returncode == 0, done.stderr
    assert modes(tmp_path / "var") == {"var": 0o700, "pleura.sqlite": 0o600}


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder of another user that root's group may write, where every user can get to it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    volume = folder / "volume"
    volume.mkdir()
    volume.chmod(0o770)
    os.chown(volume, 10001, 0)
    yield volume
    shutil.rmtree(folder)


@pytest.mark.peer("setpriv")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be other users")
def test_two_users_of_one_volume_share_it_through_their_group(volume: Path) -> None:
    """As OpenShift does it: any user, root's group; after a restore another user."""
    for user, name in zip(USERS, ("ann", "bob"), strict=True):
        done = pleura(volume, "user", "add", name, "--role", "admin", user=user)
        assert done.returncode == 0, done.stderr
    assert (volume / "pleura.sqlite").stat().st_uid == USERS[0]
    listed = pleura(volume, "user", "list", user=USERS[1]).stdout
    assert "ann" in listed
    assert "bob" in listed
    assert {mode & 0o007 for mode in modes(volume).values()} == {0}
    assert (volume / "pleura.sqlite").stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o007, 0o660)])
def test_image_result_and_database_have_what_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_durably(tmp_path / "results" / "result.dcm", [b"bytes"])
        store = InstanceStore(tmp_path)
        store.prepare()
        image = store.keep(store.temporary(b"preface"))
        store.close()
        engine = connect(f"sqlite:///{tmp_path / 'pleura.sqlite'}")
        migrate(engine)
        files = [tmp_path / "results" / "result.dcm", tmp_path / image, *tmp_path.glob("pleura.sqlite*")]
        assert len(files) >= 3
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}
        engine.dispose()
    finally:
        os.umask(before)


def test_a_folder_that_is_not_there_yet_will_be_ours_alone(tmp_path: Path) -> None:
    assert forbidden_bits(tmp_path / "none") == 0o077


@pytest.mark.parametrize(("mode", "forbidden"), [(0o700, 0o077), (0o750, 0o077), (0o770, 0o007), (0o2775, 0o007)])
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_only_a_volume_that_its_group_may_write_is_shared(tmp_path: Path, mode: int, forbidden: int) -> None:
    os.chown(tmp_path, 10001, 20001)
    tmp_path.chmod(mode)
    assert forbidden_bits(tmp_path) == forbidden


def test_a_process_leaves_no_core_file() -> None:
    """The memory of one that crashes holds patients; what it starts inherits the limit."""
    limit = "import resource; from config.private_files import keep_private; keep_private(); "
    code = f"{limit}print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    shell = f'ulimit -c "$(ulimit -H -c)"; exec "{sys.executable}" -P -c "{code}"'
    output = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "0"
