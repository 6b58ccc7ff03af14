"""Who may open an association (PS3.8 9.3.4)."""

from __future__ import annotations

import pytest

from config.listener import Listener, Peer
from node.dicom.association_policy import CALLED_UNKNOWN, CALLING_UNKNOWN, CALLING_WRONG_ADDRESS, AssociationPolicy

PEERS = Listener(
    peers=(
        Peer(ae_title="PACS", addresses=("10.1.2.3", "10.9.0.0/16", "fd00::/8")),
        Peer(ae_title="ANYWHERE"),
        Peer(ae_title="ER", stat=True),
    )
)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_without_peers_this_machine_may_call(address: str) -> None:
    assert AssociationPolicy(Listener()).reject("WHOEVER", "PLEURA", address) is None


@pytest.mark.parametrize("address", ["10.1.2.3", "::2", "fe80::1%eth0", "", "host.example"])
def test_without_peers_nobody_else_may(address: str) -> None:
    assert AssociationPolicy(Listener()).reject("WHOEVER", "PLEURA", address) == CALLING_WRONG_ADDRESS


@pytest.mark.parametrize(
    ("calling", "address"),
    [
        ("PACS", "10.1.2.3"),
        ("PACS  ", "10.1.2.3"),
        ("PACS", "10.9.77.1"),
        ("PACS", "::ffff:10.9.77.1"),
        ("PACS", "fd00::17"),
        ("ANYWHERE", "192.0.2.1"),
        ("ANYWHERE", ""),
    ],
)
def test_a_known_peer_may_call(calling: str, address: str) -> None:
    assert AssociationPolicy(PEERS).reject(calling, "PLEURA ", address) is None


@pytest.mark.parametrize(
    ("calling", "called", "address", "expected"),
    [
        ("PACS", "PLEURA", "10.1.2.4", CALLING_WRONG_ADDRESS),
        ("PACS", "PLEURA", "127.0.0.1", CALLING_WRONG_ADDRESS),
        ("PACS", "PLEURA", "nonsense", CALLING_WRONG_ADDRESS),
        ("pacs", "PLEURA", "10.1.2.3", CALLING_UNKNOWN),
        ("OTHER", "PLEURA", "127.0.0.1", CALLING_UNKNOWN),
        ("", "PLEURA", "127.0.0.1", CALLING_UNKNOWN),
        ("PACS", "pleura", "10.1.2.3", CALLED_UNKNOWN),
        ("PACS", "", "10.1.2.3", CALLED_UNKNOWN),
    ],
)
def test_others_are_rejected(calling: str, called: str, address: str, expected: object) -> None:
    assert AssociationPolicy(PEERS).reject(calling, called, address) == expected


def test_rejections_are_permanent_and_by_the_service_user() -> None:
    codes = [(r.result, r.source, r.reason) for r in (CALLING_UNKNOWN, CALLING_WRONG_ADDRESS, CALLED_UNKNOWN)]

    assert codes == [(1, 1, 3), (1, 1, 3), (1, 1, 7)]


def test_a_title_listed_twice_may_call_from_both_places() -> None:
    twice = Listener(peers=(Peer(ae_title="A", addresses=("10.0.0.1",)), Peer(ae_title="A", addresses=("10.0.0.2",))))

    assert AssociationPolicy(twice).reject("A", "PLEURA", "10.0.0.2") is None


def test_stat_peer() -> None:
    association_policy = AssociationPolicy(PEERS)

    assert association_policy.is_stat("ER ")
    assert not association_policy.is_stat("PACS")
    assert not association_policy.is_stat("UNKNOWN")
