from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from config.listener import Listener
from config.listener import Peer as KnownPeer
from node.cli.main import cli
from node.dicom.storage_scu import Outgoing, Peer, SendError, associations, echo, find_files, send_files
from tests.node.dicom.listening import listening
from tests.orthanc import wait_until

CT_FILE = "CT_small.dcm"


def _sample(name: str = CT_FILE) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


@pytest.fixture
def storescp(tmp_path: Path, free_port: int) -> Iterator[Peer]:
    """DCMTK's storescp, keeping what it gets as it came."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    command = ["storescp", "-aet", "REAL", "-B", "+xa", "-od", str(folder), str(free_port)]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})
    peer = Peer("127.0.0.1", free_port, "REAL", "PLEURASCU", timeout_seconds=10)
    wait_until(lambda: _echoes(peer), "storescp", pause=0.05)
    yield peer
    process.kill()
    process.wait()


def _echoes(peer: Peer) -> bool:
    try:
        echo(peer)
    except SendError:
        return False
    return True


def test_contexts_are_split_over_associations() -> None:
    files = [Outgoing(Path(f"{number}"), f"1.2.{number}", "1.2.840.10008.1.2") for number in range(300)]
    parts = associations(files)
    assert [len(part) for part in parts] == [128, 128, 44]
    assert [file for part in parts for file in part] == files


def test_equal_files_share_a_context() -> None:
    files = [Outgoing(Path(f"{number}"), "1.2.3", "1.2.840.10008.1.2") for number in range(300)]
    assert len(associations(files)) == 1


def test_a_named_file_that_is_not_dicom_is_told_and_one_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM")
    shutil.copy(_sample(), tmp_path / "image.dcm")
    good, bad = find_files([tmp_path])
    assert [file.path.name for file in good] == ["image.dcm"]
    assert bad == []
    good, bad = find_files([text])
    assert good == []
    assert "not a DICOM file" in bad[0].reason


@pytest.mark.peer("storescp")
def test_files_arrive_as_they_are(storescp: Peer, tmp_path: Path) -> None:
    names = [CT_FILE, "JPEG2000.dcm", "MR_small_RLE.dcm"]
    files, _ = find_files([_sample(name) for name in names])
    assert all(sent.accepted for sent in send_files(files, storescp))
    arrived = {dcmread(path).SOPInstanceUID: dcmread(path) for path in (tmp_path / "inbox").iterdir()}
    for file in files:
        sent = dcmread(file.path)
        got = arrived[sent.SOPInstanceUID]
        assert got.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert got.PixelData == sent.PixelData


@pytest.mark.peer("storescp")
def test_a_class_that_the_peer_does_not_take_is_told_and_the_rest_is_sent(storescp: Peer, tmp_path: Path) -> None:
    strange = dcmread(_sample())
    strange.SOPClassUID = strange.file_meta.MediaStorageSOPClassUID = UID("1.2.3.4.5")
    strange.save_as(tmp_path / "strange.dcm")
    files, _ = find_files([tmp_path / "strange.dcm", _sample()])
    first, second = send_files(files, storescp)
    assert not first.accepted
    assert "does not accept" in first.reason
    assert second.accepted


def test_an_absent_peer_is_a_clear_error(free_port: int) -> None:
    peer = Peer("127.0.0.1", free_port, "NOBODY", "PLEURASCU", timeout_seconds=2)
    with pytest.raises(SendError, match="cannot be reached"):
        echo(peer)


@pytest.mark.peer("storescp")
def test_the_commands_report_what_happened(storescp: Peer) -> None:
    target = ["--to", f"{storescp.host}:{storescp.port}", "--called", storescp.called_ae_title]
    runner = CliRunner()
    result = runner.invoke(cli, ["echo", *target])
    assert (result.exit_code, "answers" in result.output) == (0, True)
    result = runner.invoke(cli, ["send", str(_sample()), *target])
    assert (result.exit_code, "1 of 1 accepted" in result.output) == (0, True)


def test_a_folder_without_dicom_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    heard = CliRunner().invoke(cli, ["send", str(tmp_path)])
    assert (heard.exit_code, heard.stderr) == (1, f"pleura: no DICOM file in {tmp_path}\n")


def test_a_bad_address_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["echo", "--to", "nowhere"])
    assert result.exit_code == 2
    assert "HOST:PORT" in result.output


def test_our_own_listener_answers_its_own_title_and_a_stranger_hears_what_to_do(tmp_path: Path) -> None:
    with listening(tmp_path / "store", Listener(port=0, peers=(KnownPeer(ae_title="PACS"),))) as node:
        config = tmp_path / "pleura.toml"
        config.write_text(f"[listener]\nport = {node.port}\n", encoding="utf-8")
        own = CliRunner().invoke(cli, ["--config", str(config), "echo"])
        other = CliRunner().invoke(cli, ["echo", "--to", f"127.0.0.1:{node.port}", "--called", "PLEURA"])
    assert (own.exit_code, "answers" in own.output) == (0, True)
    assert (other.exit_code, "rejects the association" in other.stderr) == (1, True)
    assert "Register the AE title of this node" in other.stderr
    assert CliRunner().invoke(cli, ["--config", str(config), "echo"]).exit_code == 1
