"""Three questions, and a configuration that works at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from config.settings import load
from node.cli.common import program
from node.cli.init import Pacs, configuration
from node.cli.main import cli


@pytest.fixture
def pacs() -> Iterator[int]:
    entity = AE("ARCHIVE")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield int(server.server_address[1])
    server.shutdown()


@pytest.fixture(autouse=True)
def _free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default ports of this machine may be taken by a node that runs."""
    monkeypatch.setenv("PLEURA_LISTENER__PORT", "0")
    monkeypatch.setenv("PLEURA_ADMIN__PORT", "0")
    monkeypatch.setenv("PLEURA_STORE__MINIMUM_FREE_BYTES", "0")


def answered(path: Path, *answers: str, options: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(cli, ["--config", str(path), "init", *options], input="".join(f"{a}\n" for a in answers))


def test_three_answers_make_a_node_that_the_doctor_finds_well(tmp_path: Path, pacs: int) -> None:
    path = tmp_path / "new" / "pleura.toml"
    heard = answered(path, "CHESTAI", f"ARCHIVE@127.0.0.1:{pacs}", "data")
    assert heard.exit_code == 0, heard.output
    settings = load(path)
    assert (settings.listener.ae_title, settings.listener.host) == ("CHESTAI", "127.0.0.1")
    assert settings.store.folder == tmp_path / "new" / "data"
    [peer], [destination] = settings.listener.peers, settings.destinations
    assert (peer.ae_title, peer.addresses) == ("ARCHIVE", ("127.0.0.1",))
    assert (destination.name, destination.ae_title, destination.port) == ("pacs", "ARCHIVE", pacs)
    assert f"ARCHIVE on 127.0.0.1:{pacs} answers C-ECHO" in " ".join(heard.output.split())
    assert f"pleura --config {path} serve" in heard.output
    again = answered(path, "OTHER", "", "data")
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    assert load(path).listener.ae_title == "CHESTAI"
    assert answered(path, "OTHER", "", "data", options=("--force",)).exit_code == 1, "no destination yet"
    assert load(path).listener.ae_title == "OTHER"


def test_a_wrong_answer_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "pleura.toml"
    heard = answered(path, "SEVENTEEN LETTERS", "PLEURA", "10.0.0.10", "A@h:99999", "", "data")
    assert heard.output.count("AE title of this node") == 2
    assert heard.output.count("write AETITLE@HOST:PORT") == 2
    assert load(path).destinations == ()


def test_a_pacs_elsewhere_may_reach_the_node_and_nobody_else(tmp_path: Path) -> None:
    made = configuration("PLEURA", Pacs("PACS", "10.0.0.10"), tmp_path)
    assert made["listener"]["host"] == "0.0.0.0"
    assert made["listener"]["peers"] == [{"ae_title": "PACS", "addresses": ["10.0.0.10"]}]
    unknown = configuration("PLEURA", Pacs("PACS", "no-such.invalid"), tmp_path)
    assert unknown["listener"]["peers"] == [{"ae_title": "PACS"}]


def test_the_times_of_results_are_by_the_clock_of_the_machine_on_which_the_hospital_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    answered(tmp_path / "pleura.toml", "PLEURA", "", "data")
    assert load(tmp_path / "pleura.toml").site.time_zone == "Europe/Berlin"
    monkeypatch.setenv("TZ", "CET-1CEST")
    assert "site" not in configuration("PLEURA", Pacs(), tmp_path), "a rule has no name"


def test_what_is_printed_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make demo` runs the command by its path, and the shell does not find it by its name."""
    monkeypatch.setattr("sys.argv", [".venv/bin/pleura", "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/pleura"
