"""Tests that share a costly fixture run on one worker of pytest-xdist, and no worker reads files for nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.conftest import MARKERS, names_marker, pytest_ignore_collect


@pytest.mark.xdist_group("together")
def test_a_group_has_its_worker(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one by one: there are no groups (run `make test`)")
    assert request.node.nodeid.endswith("@together")


def test_a_run_of_campaigns_reads_no_file_without_one(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytestconfig.option, "markexpr", "campaign")
    here = Path(__file__).parent
    assert pytest_ignore_collect(here / "test_groups.py", pytestconfig) is True
    for needed in (here / "campaigns" / "test_load.py", here / "conftest.py", here / "campaigns"):
        assert pytest_ignore_collect(needed, pytestconfig) is None
    monkeypatch.setattr(pytestconfig.option, "markexpr", "not campaign")
    assert pytest_ignore_collect(here / "test_groups.py", pytestconfig) is None


@pytest.mark.parametrize("marker", MARKERS)
def test_a_command_of_the_makefile_runs_every_file_with_a_marker(marker: str) -> None:
    """`make test` leaves these tests out: where no other command finds them, nobody runs them."""
    here = Path(__file__).parent
    (folder,) = re.findall(rf"-m {marker} (\S+)$", (here.parent / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    searched = here.parent / folder.replace("$(TESTS)", "tests")
    marked = [file for file in here.rglob("test_*.py") if names_marker(file, marker)]
    assert marked
    assert [file for file in marked if not file.is_relative_to(searched)] == []
