"""Who was rejected is counted, kept and logged, whatever the database does and however many come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification
from sqlalchemy.exc import OperationalError

from config.listener import Listener, Peer
from db import rejected_associations
from db.database import Database
from db.rejected_associations import RejectedAssociation
from node.dicom.association_policy import CALLED_UNKNOWN, CALLING_UNKNOWN, LIMIT, AssociationPolicy
from node.dicom.rejected_associations import LINES_A_MINUTE, RejectedAssociations
from tests.db.examples import NOW
from tests.node.dicom.listening import listening
from tests.rules import NO_RULES
from workers.association import open_association

KNOWN = Listener(port=0, peers=(Peer(ae_title="PACS", addresses=("10.1.2.3",)), Peer(ae_title="CT1")))


class Written:
    """Keeps what is written; ``down`` makes it fail."""

    def __init__(self) -> None:
        self.down = False
        self.rows: list[RejectedAssociation] = []

    def __call__(self, rows: Sequence[RejectedAssociation]) -> None:
        if self.down:
            raise OperationalError("insert", {}, Exception("down"))
        self.rows += rows


def counter(write: Written, seconds: Sequence[float] = (0.0,)) -> RejectedAssociations:
    """One that writes when it is told to."""
    clock = iter([*seconds, *[seconds[-1]] * 10_000])
    return RejectedAssociations(write, lambda: NOW, lambda: next(clock), pause_seconds=3600)


def test_what_cannot_be_written_is_written_later() -> None:
    kept = Written()
    rejected = counter(kept)
    kept.down = True
    rejected.add("CT2", "PLEURA", "10.0.0.5", "why")
    rejected.write()
    rejected.add("CT2", "PLEURA", "10.0.0.5", "why")
    kept.down = False
    rejected.close()
    assert kept.rows == [RejectedAssociation("CT2", "PLEURA", "10.0.0.5", "why", 2, NOW, NOW)]


def test_a_flood_fills_neither_memory_nor_log() -> None:
    kept = Written()
    rejected = counter(kept)
    lines = sum(rejected.add(f"X{number}", "PLEURA", "10.0.0.5", "why") for number in range(3000))
    lines += sum(rejected.add("X0", "PLEURA", "10.0.0.5", "why") for _ in range(3000))
    rejected.close()
    assert lines == LINES_A_MINUTE
    assert len(kept.rows) <= 1000
    assert kept.rows[0].count == 3001


def test_a_caller_is_one_line_a_minute_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    rejected = counter(Written(), (0.0, 0.0, 30.0, 61.0, 61.0))
    assert [rejected.add("CT2", "PLEURA", "10.0.0.5", "why") for _ in range(3)] == [True, False, True]
    assert "1 more rejected associations" in caplog.text
    rejected.close()


def test_the_listener_keeps_who_was_rejected_and_logs_what_admits_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(tmp_path / "store", KNOWN) as node:
        for _ in range(2):
            assert _requested("CT2", node.port).is_rejected
        node.rejected.write()
        [row] = Database(node.engine, NO_RULES).read(rejected_associations.latest, NOW.replace(year=2000))
    assert (row.calling_ae_title, row.called_ae_title, row.address, row.reason, row.count) == (
        "CT2",
        "PLEURA",
        "127.0.0.1",
        CALLING_UNKNOWN.why,
        2,
    )
    lines = [line for line in caplog.messages if "rejected" in line]
    assert len(lines) == 1
    assert '[[listener.peers]] ae_title = "CT2" addresses = ["127.0.0.1"]' in lines[0]


def test_the_node_itself_may_verify_but_not_store(tmp_path: Path) -> None:
    """So `pleura doctor` sees whether its own listener answers, without being one of its peers."""
    with listening(tmp_path / "store", KNOWN) as node:
        association = _requested("PLEURA", node.port)
        assert [str(each.abstract_syntax) for each in association.accepted_contexts] == [Verification]
        assert association.send_c_echo().Status == 0
        association.release()


def _requested(calling: str, port: int) -> Association:
    contexts = [build_context(Verification), build_context(ComputedRadiographyImageStorage)]
    address = ("127.0.0.1", port)
    return open_association(
        address, called="PLEURA", calling=calling, contexts=contexts, seconds=60, connect_seconds=60
    )


@pytest.mark.parametrize(
    ("caller", "own"),
    [
        (("PLEURA", "PLEURA", "127.0.0.1", "127.0.0.1"), True),
        (("PLEURA", "PLEURA", "192.0.2.7", "192.0.2.7"), True),  # this machine by its own address
        (("PLEURA", "PLEURA", "::ffff:192.0.2.7", "192.0.2.7"), True),
        (("PLEURA", "PLEURA", "192.0.2.8", "192.0.2.7"), False),
        (("PLEURA", "OTHER", "127.0.0.1", "127.0.0.1"), False),
        (("OTHER", "PLEURA", "127.0.0.1", "127.0.0.1"), False),
        (("PLEURA", "PLEURA", "nonsense", "nonsense"), False),
    ],
)
def test_only_this_machine_checks_itself(caller: tuple[str, str, str, str], own: bool) -> None:
    assert AssociationPolicy(KNOWN).is_own_check(*caller) is own


@pytest.mark.parametrize(
    ("listener", "calling", "called", "address", "why", "sentence", "toml"),
    [
        (KNOWN, "CT2", "PLEURA", "10.0.0.5", CALLING_UNKNOWN.why, "If you know this system", '["10.0.0.5"]'),
        (Listener(), "CT2", "PLEURA", "10.0.0.5", CALLING_UNKNOWN.why, "only listed peers", 'ae_title = "CT2"'),
        (KNOWN, "PACS", "PLEURA", "10.0.0.5", CALLING_UNKNOWN.why, 'Add "10.0.0.5" to the addresses', ""),
        (KNOWN, "CT1", "PLEURO", "10.0.0.5", CALLED_UNKNOWN.why, "Let CT1 call PLEURA, not PLEURO.", ""),
        (KNOWN, "CT2", "PLEURO", "10.0.0.5", CALLED_UNKNOWN.why, "add it to the configuration too", '"CT2"'),
        (KNOWN, "CT1", "PLEURA", "10.0.0.5", CALLING_UNKNOWN.why, "nothing to do", ""),
        (KNOWN, r"C\T", "PLEURA", "10.0.0.5", CALLING_UNKNOWN.why, "1 to 16 ASCII characters", ""),
        (KNOWN, "CT1", "PLEURA", "10.0.0.5", LIMIT.why, "listener.maximum_associations (25 now)", ""),
    ],
)
def test_what_admits_a_caller(
    listener: Listener, calling: str, called: str, address: str, why: str, sentence: str, toml: str
) -> None:
    advice = AssociationPolicy(listener).advice(calling, called, address, why)
    assert sentence in advice.sentence
    assert toml in advice.toml
    assert bool(toml) is bool(advice.toml)
