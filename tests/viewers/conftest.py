"""A PACS with drawn studies in it, a web origin before it, and a browser that looks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.orthanc import Orthanc, running_orthanc
from tests.peers import skip_without
from tests.viewers.origin import FOLDER, MODULES, OHIF, Origin, running_origin

REPOSITORY = FOLDER.parent.parent
ARTIFACTS = REPOSITORY / "artifacts" / "viewers"
_SECONDS = 900


@dataclass(frozen=True)
class Viewers:
    """Orthanc behind one web origin, and the scripts that open a browser on it."""

    origin: Origin
    pacs: Orthanc

    def drive(self, script: str, cases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Run a browser script over ``cases``; returns what it saw, by the case's name."""
        question = {"executable": shutil.which("chromium"), "origin": self.origin.address, "cases": cases, **more}
        done = subprocess.run(
            ["node", script],
            input=json.dumps(question),
            text=True,
            capture_output=True,
            timeout=_SECONDS,
            cwd=FOLDER,
            check=False,
        )
        assert done.returncode == 0, f"{script} failed: {done.stderr[-3000:]}"
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers


def _installed() -> None:
    if OHIF.is_dir() and (MODULES / "playwright-core").is_dir():
        return
    skip_without("the viewers OHIF and dwv are missing: `make peers` installs them (npm)")


@pytest.fixture(scope="session")
def viewers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewers]:
    """One PACS and one origin for all tests of viewers; each case is a study of its own in it."""
    _installed()
    with (
        running_origin() as origin,
        running_orthanc(tmp_path_factory.mktemp("orthanc"), "PACS", origin=origin.address) as pacs,
    ):
        origin.connect(pacs.http_port)
        yield Viewers(origin, pacs)


def pictures_of(name: str) -> Path:
    """A new, empty folder for the screenshots of a case; they are kept as build artefacts."""
    folder = ARTIFACTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
