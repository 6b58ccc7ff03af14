"""Folders that PostgreSQL's own user may enter, which pytest's are not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short name: sockets lie in it (unix(7): 107 bytes)."""
    made = Path(tempfile.mkdtemp(prefix="pleura-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)
