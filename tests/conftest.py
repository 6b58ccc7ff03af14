"""What makes a run of the tests the same each time, and what lets them run beside each other.

Property tests take the same examples in every run; ``make fuzz`` takes others, from a seed that it prints. Numerical
libraries use one thread, so that sums do not depend on the machine and tests beside each other do not crowd it.
"""

from __future__ import annotations

import logging
import os
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

for _library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_library, "1")
os.environ.setdefault("TCP_NODELAY", "1")  # Debian's DCMTK and Orthanc wait 44 ms per C-STORE on loopback without it

import psycopg  # noqa: E402, F401  (before TensorFlow, as in a worker: tests/db/test_tensorflow_beside.py)
import pytest  # noqa: E402
from hypothesis import settings as hypothesis_settings  # noqa: E402
from hypothesis.internal.conjecture import providers as hypothesis_providers  # noqa: E402

from tests.peers import shared_data_folder, skip_without_peers  # noqa: E402
from tests.ports import free_port as port_that_is_free  # noqa: E402

hypothesis_settings.register_profile("same", derandomize=True, database=None, deadline=None, print_blob=True)
hypothesis_settings.register_profile("random", deadline=None, print_blob=True)
hypothesis_settings.load_profile("same")


@pytest.hookimpl(trylast=True)  # after the profile was chosen
def pytest_configure(config: pytest.Config) -> None:
    """Keep constants of our modules out of examples that are to be the same.

    Hypothesis takes them from what is loaded at that moment, which depends on the tests that ran before in the process.
    """
    if hypothesis_settings.get_current_profile_name() == "same" and hasattr(hypothesis_providers, "_local_constants"):
        nothing = hypothesis_providers._local_constants
        hypothesis_providers._get_local_constants = lambda: nothing


MARKERS = ("campaign", "image", "nightly", "training")
"""Each of these is a run of its own, for which most files need not be read."""


@cache
def names_marker(file: Path, marker: str) -> bool:
    """Whether the text of a file of tests names a marker."""
    return f"mark.{marker}" in file.read_text(encoding="utf-8")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m campaign`` leave out files that do not name it.

    Each worker reads every file; to import TensorFlow and three hundred files for nothing took longer than many a test.
    """
    marker = config.getoption("markexpr")
    if marker not in MARKERS or not collection_path.match("test_*.py") or names_marker(collection_path, marker):
        return None
    return True


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which build networks as well
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a test the same weights in every run; skip it where its peer is missing.

    Weights drawn at random failed one run of two hundred, for none of which the code was to blame.
    """
    if (keras := sys.modules.get("keras")) is not None:
        keras.utils.set_random_seed(zlib.crc32(item.nodeid.partition("@")[0].encode()))
    for marker in item.iter_markers("peer"):
        skip_without_peers(*marker.args)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a fixture of their module on one worker, so that it is made once; begin with slow ones.

    A test that takes a minute and begins last is waited for by every other worker.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        for marker in MARKERS:
            if item.get_closest_marker(marker) is not None and not names_marker(item.path, marker):
                raise pytest.UsageError(f"{item.path}: `-m {marker}` leaves it out: write mark.{marker} in this file")
        if item.get_closest_marker("xdist_group") is None and _shares(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _shares(item: pytest.Item) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    return any(fixture.scope in ("module", "class", "package") for each in definitions for fixture in each)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Undo what a command does to the log of its process, which here is that of other tests as well."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real radiographs; mark the test with ``peer("shared-data")``."""
    return shared_data_folder()


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    return port_that_is_free()
