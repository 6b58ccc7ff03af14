"""The server of page and DICOMweb: what it does before it says that it is ready."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from config.settings import Admin
from node.web.connection_limits import Deadlines, limits_from
from node.web.server import ServerRules, run_server


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("nothing_kept")
def test_what_a_server_has_loaded_is_not_examined_while_it_answers() -> None:
    stop = threading.Event()
    kept: list[int] = []

    def ready(port: int) -> None:
        assert port
        kept.append(gc.get_freeze_count())
        stop.set()

    run_server(Starlette(), ServerRules("127.0.0.1", 0, limits_from(Admin()), Deadlines(10)), ready, stop)
    (count,) = kept
    assert count > 10_000, "the modules alone are more"
    assert len(gc.get_objects()) < count, "what garbage collection still looks through"
