"""Every program that a test asks for is in the list that `make peers` installs from, and a skip says so."""

from __future__ import annotations

import re
from itertools import chain, count
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import peers, ports
from tests.ports import first_ephemeral, free_port

TESTS = Path(__file__).parent


def asked_for() -> set[str]:
    marks = re.compile(r"(?:mark\.peer|skip_without_peers)\(([^)*]*)\)")
    texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py") if "node_modules" not in path.parts]
    named = {name for text in texts for mark in marks.findall(text) for name in re.findall(r'"([^"]+)"', mark)}
    return named - {peers.SHARED_DATA}


def test_every_program_that_is_asked_for_is_in_the_list() -> None:
    assert "storescu" in asked_for()
    assert [program for program in sorted(asked_for()) if not peers.package(program)] == []


def test_a_missing_program_says_in_one_line_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert peers.missing("storescu") == "storescu is missing: `make peers` installs it (Debian's dcmtk)"


def test_a_free_port_is_none_that_an_outgoing_connection_may_be_given() -> None:
    assert all(1024 < free_port() < first_ephemeral() for _ in range(20))


def test_a_port_that_one_test_was_given_is_given_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose server is not there yet: here the dice fall on it again."""
    given = free_port()
    dice = chain([given, given], count(given + 1))
    monkeypatch.setattr(ports, "_dice", SimpleNamespace(randrange=lambda *_: next(dice)))
    assert free_port() > given
