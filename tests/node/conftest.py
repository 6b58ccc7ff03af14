"""What the tests of commands share: a configuration with a store of its own, and a way to call ``pleura`` with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner, Result

from node.cli.main import cli


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file whose store is below the test's folder."""
    path = tmp_path / "pleura.toml"
    path.write_text(tomli_w.dumps({"store": {"folder": str(tmp_path / "var")}}), encoding="utf-8")
    return path


@pytest.fixture
def run(config: Path) -> Callable[..., Result]:
    """Call a command with that configuration."""

    def _run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(cli, ["--config", str(config), *arguments], **options)

    return _run
