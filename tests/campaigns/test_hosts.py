"""The short form of the campaign with two hosts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.campaigns import hosts
from tests.campaigns.command import SkippedError

pytestmark = [pytest.mark.timeout(900), pytest.mark.campaign]


@pytest.mark.peer("postgres")
@pytest.mark.peer("redis-server")
@pytest.mark.peer("ip")
@pytest.mark.peer("nsenter")
def test_a_host_that_is_cut_off_or_lost_loses_and_doubles_nothing(folder: Path) -> None:
    try:
        with ExitStack() as ending:
            hosts.Network(ending)
    except SkippedError as error:
        pytest.skip(str(error))
    outcome = hosts.run(folder / "run", 5, 4, lambda _: None, longest=3, pause=1)
    assert outcome.faults == [], outcome.text()
