"""Results that stay here for whoever asks: there from their delivery on, and while nothing speaks against it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from config.destinations import Destination
from db import deliveries, holds, tables
from db.queries import own_results
from db.queries.own_results import Level, ResultKeys
from db.states import DeliveryState
from db.withdrawals import withdraw_results
from tests.node.web.demo import CASES, Demo
from workers.delivery import DeliveryTools, deliver
from workers.destinations.destination_kinds import destination_kinds

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def test_a_delivery_makes_results_visible_and_what_holds_it_hides_them(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    viewers = Destination.model_validate({"name": "viewers", "kind": "on-request"})
    settings = demo.settings = demo.settings.model_copy(update={"destinations": (viewers,)})
    study = demo.add(CASES[0], 0, NOW)
    database = demo.database

    def seen() -> list[str]:
        found = database.read(own_results.matches, Level.IMAGE, ResultKeys(), ("viewers",), 10)
        return [one.kind for group in found for one in group]

    assert seen() == ["seg", "sr"]
    assert not database.read(own_results.matches, Level.STUDY, ResultKeys(), ("pacs",), 10), "of that destination alone"

    # A delivery that waits is not there, and delivering it needs no peer.
    with demo.engine.begin() as connection:
        connection.execute(update(tables.Delivery).values(state=DeliveryState.PENDING, attempts=0, lease_until=None))
    assert not seen()
    later = NOW + timedelta(hours=1)
    tools = DeliveryTools(settings, database, destination_kinds(settings), lambda: later, "worker")
    with demo.engine.connect() as connection:
        [first, *_] = connection.scalars(tables.Delivery.__table__.select().with_only_columns(tables.Delivery.id)).all()
    deliver(first, tools)
    assert seen() == ["seg", "sr"]

    database.write(holds.hold, study, "a doubt", "ada", later)
    assert not seen()
    database.write(holds.release, study, "ada", later)
    assert seen() == ["seg", "sr"]

    with demo.engine.connect() as connection:
        job = connection.scalar(tables.Job.__table__.select().with_only_columns(tables.Job.id))
    assert job is not None
    database.write(withdraw_results, job, "its image was rejected", "113037", "node", later)
    assert not seen()
    with pytest.raises(Exception, match="withdrawn"):
        database.write(deliveries.requeue, first, "ada", "asked for", later)
    demo.engine.dispose()


@pytest.mark.parametrize(
    "values", [{"host": "10.0.0.1"}, {"verification": "query"}, {"verify_identity": True}, {"rejection_notes": False}]
)
def test_it_has_no_peer(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="on-request"):
        Destination.model_validate({"name": "viewers", "kind": "on-request", **values})
