"""deploy/systemd/pleura.service starts a command of ours with settings that exist, and systemd rates it as safe."""

from __future__ import annotations

import shlex
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from config.environment import misspelt
from config.settings import Settings
from node.cli.main import COMMANDS

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "pleura.service"


def service() -> dict[str, str]:
    """The keys of [Service]; of a repeated key the last value."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT, encoding="utf-8")
    return dict(parser["Service"])


def test_it_starts_a_command_of_ours_with_settings_that_exist() -> None:
    found = service()
    program, option, _, command = shlex.split(found["ExecStart"])
    assert (Path(program).name, option, command in COMMANDS) == ("pleura", "--config", True)
    name, _, folder = found["Environment"].partition("=")
    assert misspelt({name: folder}, Settings, frozenset()) is None
    assert folder == f"/var/lib/{found['StateDirectory']}", "with ProtectSystem=strict it may write nothing else"


def test_what_it_makes_is_private() -> None:
    found = service()
    assert (found["UMask"], found["StateDirectoryMode"]) == ("0077", "0700")


def test_what_no_restart_can_help_is_not_restarted(tmp_path: Path) -> None:
    """A key that is misspelt ended the service every five seconds, for ever."""
    (tmp_path / "wrong.toml").write_text("foo = 1", encoding="utf-8")
    (tmp_path / "impossible.toml").write_text('[listener]\nhost = "192.0.2.1"\n', encoding="utf-8")
    ended = []
    for name in ("wrong", "impossible"):
        options = ["--config", str(tmp_path / f"{name}.toml"), "serve"]
        command = [sys.executable, "-P", "-m", "node.cli.main", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        ended.append(str(done.returncode))
    assert service()["RestartPreventExitStatus"].split() == ended


@pytest.mark.peer("systemd-analyze")
def test_systemd_knows_every_line_and_rates_it_below_two() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-500:]
    verified = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if "pleura.service" in line]
    assert [line for line in complaints if "is not executable" not in line] == []
