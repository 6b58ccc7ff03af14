"""Fixtures for every room, and the rule for tests that need a real peer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SHARED_DATA = "shared-data"
_REPOSITORY = Path(__file__).resolve().parent.parent


def _shared_data_folder() -> Path:
    return Path(os.environ.get("SHARED_DATA", _REPOSITORY.parent / "shared" / "data"))


def _missing(peer: str) -> str | None:
    """Say what is missing for ``peer`` (an executable, or the shared data), or None."""
    if peer == SHARED_DATA:
        folder = _shared_data_folder()
        return None if (folder / "README.md").is_file() else f"the radiographs in {folder} are not on this machine"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, _postgresql_folders())])
    return None if shutil.which(peer, path=path) else f"the program {peer} is not installed (see .ci/run)"


def _postgresql_folders() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose peer is missing; in CI, where everything is installed, fail it."""
    for marker in item.iter_markers("peer"):
        for peer in marker.args:
            reason = _missing(peer)
            if reason and os.environ.get("CI"):
                pytest.fail(f"in CI every peer must be there: {reason}", pytrace=False)
            if reason:
                pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real radiographs; mark the test with ``peer("shared-data")``."""
    return _shared_data_folder()


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
