"""All commands alike: JSON for programs, completion by the shell, and nothing of a library above an error."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from config.notice import NOTICE
from config.settings import load
from db.engine import connect
from node.cli.common import SERVICES, print_json, stop_on_signals
from node.cli.main import COMMANDS, cli
from node.cli.results import _print
from node.cli.user import _ask_password
from node.monitoring.check import Check
from tests.migrated import migrate

Run = Callable[..., Result]

NO_JSON = {
    **dict.fromkeys(SERVICES, "runs until it is stopped; /api/v1 tells how it is"),
    **dict.fromkeys(("init", "demo", "send", "notify"), "acts, and its exit status tells whether it worked"),
    **dict.fromkeys(("retry", "hold", "release", "reported", "priority"), "acts; `show --json` tells the result"),
    **dict.fromkeys(("models new", "models add", "models combine", "models remove"), "acts; see `models list --json`"),
    **dict.fromkeys(("models activate", "models shadow", "models off"), "acts; see `models list --json`"),
    **dict.fromkeys(("user add", "user password", "user change", "user revoke"), "acts; see `user list --json`"),
    **dict.fromkeys(("explore", "train", "evaluate"), "writes its figures as JSON into the folder of --out"),
    "audit verify": "its exit status is the answer",
    "audit export": "--format json",
    **dict.fromkeys(("echo", "probe", "db migrate", "db compact"), "its exit status is the answer"),
    "explain": "writes a page",
    "export": "writes a folder with a report",
    "user token": "prints one word, the token",
    "completion": "prints a script",
    "db schema": "prints a page",
    "db reader-role": "prints SQL",
    "models keys": "prints a page",
}
"""Commands that print no JSON, and why."""


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", command.commands[inner]) for inner in command.commands)
        else:
            yield name, command


def test_what_lists_or_inspects_prints_json_too() -> None:
    without = {name for name, command in _commands() if "as_json" not in {each.name for each in command.params}}
    assert without == set(NO_JSON)


@pytest.mark.parametrize(
    "command",
    ["worklist", "problems", "drift", "doctor --no-peers", "config", "user list", "user tokens", "models list"],
)
def test_the_output_with_json_is_json_and_nothing_else(run: Run, config: Path, command: str) -> None:
    settings = load(config)
    settings.store.folder.mkdir()
    engine = connect(settings.database_url)
    migrate(engine)
    engine.dispose()
    shown = json.loads(run(*command.split(), "--json").stdout)
    records = shown if isinstance(shown, list) else [shown]
    assert all(record.get("notice") == (None if command == "config" else NOTICE) for record in records)


def test_a_model_as_json_has_no_table(run: Run) -> None:
    shown = json.loads(run("models", "show", "chest-classifier", "--json").stdout)
    assert shown["name"] == "chest-classifier"
    assert shown["labels"][0]["threshold"] > 0


def test_each_record_of_a_list_says_what_it_is_not_for_and_has_its_own_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program that takes the list finds it where it was, and what it keeps of it says so."""
    print_json((Check("broker", ok=True, found="answers"), Path("a")))
    record, path = json.loads(capsys.readouterr().out)
    assert (record["found"], record["notice"], path) == ("answers", NOTICE, "a")


def test_users_as_json_hold_no_password(run: Run) -> None:
    run("user", "add", "anna", "--role", "admin", input="a long password\n")
    (anna,) = json.loads(run("user", "list", "--json").stdout)
    assert (anna["name"], anna["role"], anna["has_password"]) == ("anna", "admin", True)
    assert not [name for name in anna if "hash" in name]


def _completed(folder: Path, typed: str) -> list[str]:
    """What bash offers after ``words``, with the printed script and a command ``pleura`` in the path."""
    script = CliRunner().invoke(cli, ["completion", "bash"], prog_name="pleura").stdout
    command = folder / "pleura"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m node.cli.main "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    call = f'{script}\nCOMP_WORDS=({typed} ""); COMP_CWORD={len(typed.split())}\n_pleura_completion pleura\n'
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", call + 'printf "%s\\n" "${COMPREPLY[@]}"'], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands(tmp_path: Path) -> None:
    assert _completed(tmp_path, "pleura")[: len(COMMANDS)] == list(COMMANDS)
    assert "reader-role" in _completed(tmp_path, "pleura db")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_documented_shell_has_a_script(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell], prog_name="pleura")
    assert done.exit_code == 0
    assert "_PLEURA_COMPLETE" in done.stdout


def _fails(*arguments: Any, **environment: str) -> str:
    """What a command that fails writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "node.cli.main", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


NO_DATA_SET = b"\0" * 128 + b"DICM" + b"\x08\x00\x05\x00ZZ\x04\x00abcd" * 20


@pytest.mark.parametrize("command", ["results", "send"])
def test_a_broken_file_is_one_sentence(tmp_path: Path, config: Path, command: str) -> None:
    file = tmp_path / "broken.dcm"
    file.write_bytes(NO_DATA_SET)
    lines = _fails("--config", config, command, file).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pleura: ")


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        ("config >&-", 0, ""),
        ("config >&- 2>&- <&-", 0, ""),
        ("config > /dev/full", 1, "pleura: the output cannot be written: No space left on device\n"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_one_sentence(config: Path, command: str, status: int, told: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -P -m node.cli.main --config "$1" {command}', sys.executable, config],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (status, told)


def test_a_password_is_not_read_from_a_closed_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit):
        _ask_password()
    assert capsys.readouterr().err == "pleura: standard input is closed: no password can be read\n"


def test_no_file_gets_the_number_of_a_standard_stream() -> None:
    script = (
        "import sys; sys.argv[1:] = ['--version']; import node.cli.main as m\ntry: m.main()\nexcept SystemExit: pass\n"
    )
    script += "sys.exit(open(sys.executable).fileno())"
    done = subprocess.run(["sh", "-c", '"$0" -P -c "$1" <&- >&- 2>&-', sys.executable, script])
    assert done.returncode > 2


def test_a_second_interrupt_ends_a_command_that_waits(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_on_signals(waits_for="the study") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        assert capfd.readouterr().err == "pleura: stops after the study; Ctrl-C again ends at once\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("closed", [False, True])
def test_a_hangup_stops_a_node_in_a_terminal_and_no_service(closed: bool) -> None:
    script = (
        "import os, signal\nfrom node.cli.common import stop_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs these tests by nohup has it ignored in every child\n"
        "with stop_on_signals() as stop:\n    os.kill(os.getpid(), signal.SIGHUP)\n    print(stop.wait(1))\n"
    )
    terminal, its_end = pty.openpty()
    try:
        stdin = its_end if closed else subprocess.DEVNULL
        done = subprocess.run(
            [sys.executable, "-P", "-c", script], stdin=stdin, capture_output=True, text=True, check=True
        )
    finally:
        os.close(terminal)
        os.close(its_end)
    assert done.stdout == f"{closed}\n"
    assert ("restart the node" in done.stderr) is not closed


def _capture() -> Dataset:
    """As little of a Secondary Capture as is one of ours."""
    capture = Dataset()
    capture.SOPClassUID, capture.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    capture.StudyInstanceUID = capture.SeriesInstanceUID = "1.2.3"
    capture.Rows = capture.Columns = 8
    equipment = Dataset()
    equipment.Manufacturer = "Pleura"
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    capture.ContributingEquipmentSequence = [equipment]
    return capture


def _save(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


@pytest.mark.parametrize("as_json", [False, True])
def test_a_broken_file_hides_no_other_result(tmp_path: Path, run: Run, as_json: bool) -> None:
    files = tmp_path / "files"
    files.mkdir()
    whole = _save(_capture(), files / "b.dcm")
    (files / "a.dcm").write_bytes(whole.read_bytes()[:-3])  # in the midst of an item
    odd = _capture()
    odd.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence = []
    _save(odd, files / "c.dcm")
    segmentation = _capture()
    segmentation.SOPClassUID, segmentation.NumberOfFrames = SegmentationStorage, 5
    _save(segmentation, files / "d.dcm")
    directory = Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = MediaStorageDirectoryStorage, "1.2.5"
    _save(directory, files / "DICOMDIR")
    done = run("results", *(["--json"] if as_json else []), str(files))
    assert done.exit_code == 1
    assert "1.2.3.4" in done.stdout
    assert [line.partition(" cannot")[0] for line in done.stderr.splitlines()] == [
        f"pleura: {files / name}" for name in ("a.dcm", "c.dcm", "d.dcm")
    ]
    if as_json:
        made = json.loads(done.stdout)
        assert [len(made["results"]), len(made["unreadable"]), made["problems"]] == [1, 3, []]


def test_what_a_file_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _print({Path("a.dcm"): ["series: \x1b[2J\x1b]0;title\x07[red]"]}, ["missing \x9b31m"])
    shown = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert "series: \\x1b[2J" in shown


@pytest.mark.parametrize(
    "command", ["user list", "user tokens", "worklist", "problems", "audit verify", "drift", "retry --all"]
)
def test_a_database_that_is_away_is_one_sentence(run: Run, config: Path, command: str) -> None:
    config.write_text(f'{config.read_text()}\n[database]\nurl = "postgresql://pleura:x@127.0.0.1:1/pleura"\n')
    done = run(*command.split())
    assert done.exit_code == 1, done.output
    assert done.stderr == "pleura: no PostgreSQL answers at 127.0.0.1:1; start it, or correct database.url\n"


def test_a_peer_that_is_not_there_is_one_sentence(config: Path) -> None:
    (line,) = _fails("--config", config, "echo", "--to", "127.0.0.1:1").splitlines()
    assert line.startswith("pleura: PLEURA on 127.0.0.1:1 cannot be reached")


@pytest.mark.training
def test_tensorflow_writes_nothing_above_an_error(tmp_path: Path) -> None:
    """It writes past every log, even before a level of its own counts."""
    pytest.importorskip("tensorflow")
    file = tmp_path / "broken.keras"
    file.write_bytes(b"no network")
    (line,) = _fails("models", "new", file).splitlines()
    assert line.startswith(f"pleura: {file} cannot be loaded")
