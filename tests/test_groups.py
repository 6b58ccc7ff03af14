"""Tests that share a costly fixture run on one worker of pytest-xdist, and no worker reads files for nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import pytest_ignore_collect


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
