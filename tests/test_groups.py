"""Tests that share a costly fixture run on one worker of pytest-xdist, so that it is made once."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("together")
def test_a_group_has_its_worker(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one by one: there are no groups (run `make test`)")
    assert request.node.nodeid.endswith("@together")
