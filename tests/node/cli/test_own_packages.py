"""A foreign module with the name of one of our packages is named, and is never run, whatever starts Pleura."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def start(folder: Path, *arguments: str, ahead: bool = False) -> subprocess.CompletedProcess[str]:
    """Start Python in ``folder``; ``ahead`` puts that folder in front of Pleura in PYTHONPATH."""
    path = f"{folder}{os.pathsep}{ROOT}" if ahead else str(ROOT)
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.py").write_text("raise SystemExit('the foreign module was run')\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "ahead"),
    [
        (("-m", "node.cli.main", "--version"), False),
        (("-P", "-c", "from node.cli.main import main; main()"), True),
        (("-c", "import models.api"), False),
        (("-c", "import workers.results.api"), False),
        (("-m", "celery", "-A", "workers.celery", "report"), False),
    ],
    ids=["module", "script", "models", "results", "celery"],
)
def test_a_foreign_config_is_named(folder: Path, arguments: tuple[str, ...], ahead: bool) -> None:
    done = start(folder, *arguments, ahead=ahead)
    assert done.returncode != 0
    output = " ".join(f"{done.stderr} {done.stdout}".split())
    assert f"{folder / 'config.py'} is found in the place of Pleura's own package 'config'" in output
    assert "Rename it, or start Python so that its folder is not searched first" in output
    assert "was run" not in output


def test_the_command_says_it_in_one_line(folder: Path) -> None:
    done = start(folder, "-m", "node.cli.main", "serve")
    assert done.stderr.startswith("pleura: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["models.py", "db/__init__.py"])
def test_so_is_any_other_package(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    done = start(tmp_path, "-m", "node.cli.main", "--version")
    assert done.returncode != 0
    package = Path(name).parts[0].removesuffix(".py")
    assert f"{tmp_path / name} is found in the place of Pleura's own package '{package}'" in done.stderr


def test_nothing_is_said_where_nothing_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "settings.py").touch()
    assert start(tmp_path, "-m", "node.cli.main", "--version").returncode == 0
