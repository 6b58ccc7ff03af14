"""A radiologist's visit in a real browser, with axe-core on every page. Screenshots are kept in ``$PLEURA_SHOTS``."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.users import Accounts
from tests.node.web.conftest import CHEAP
from tests.node.web.demo import ARRIVING, PASSWORD, Case, Demo, settings_for
from tests.node.web.history import fill_weeks
from tests.node.web.test_live import served
from tests.peers import skip_without

HERE = Path(__file__).parent
STEPS = {
    "log in",
    "a study arrives live",
    "keys and search",
    "overlay changes the pixels of the mask and no others",
    "invert",
    "reject a finding",
    "retry a failed job",
    "a reported study leaves the worklist",
    "German and light, remembered",
    "log out",
    "switch a model off",
    "the system page renews itself",
    "no script error, no request to another host",
    *(
        f"axe {name}"
        for name in (
            *("login", "worklist", "study", "system", "try", "account", "people", "audit", "history"),
            *("system for an admin", "model"),
        )
    ),
}


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The browser driver and axe-core at their pinned versions."""
    folder = HERE / "node_modules"
    if not (folder / "axe-core").is_dir():
        skip_without("the browser's driver and axe-core are missing: `make peers` installs them (npm)")
    return folder


@pytest.mark.slow
@pytest.mark.peer("chromium")
@pytest.mark.peer("npm")
def test_a_visit_from_log_in_to_log_out(tmp_path: Path, node_modules: Path) -> None:
    demo = Demo(tmp_path / "store")
    demo.add_users(Accounts(demo.engine, CHEAP))
    fill_weeks(demo, datetime.now(UTC), a_week=15)
    demo.fill(datetime.now(UTC))
    shots = Path(os.environ.get("PLEURA_SHOTS", tmp_path / "shots"))
    shots.mkdir(parents=True, exist_ok=True)
    with served(settings_for(demo.folder)) as port:
        environment = os.environ | {
            "BASE": f"http://127.0.0.1:{port}",
            "SHOTS": str(shots),
            "PASSWORD": PASSWORD,
            "CHROMIUM": shutil.which("chromium") or "",
        }
        context = subprocess.Popen(
            ["node", "flow.js"],
            cwd=HERE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        found = []
        assert context.stdout is not None
        for line in context.stdout:
            found.append(line.rstrip("\n"))
            if line.strip() == "arrive":
                name, number = ARRIVING, 90
                case = Case(name, "K-20990", "F", "19770707", "Chest PA", 0, fate="waiting")
                demo.add(case, number, datetime.now(UTC))
        assert context.wait(60) == 0, "\n".join(found)
    assert {line.removeprefix("ok ") for line in found if line.startswith("ok ")} == STEPS
    assert {path.stem for path in shots.glob("*.png")} >= {"login", "worklist", "study", "system"}
