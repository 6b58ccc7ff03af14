"""Every page of the node in both languages, both themes and three widths, as axe-core and a ruler see it.

Screenshots are taken where ``$PLEURA_SHOTS`` names a folder; somebody has to look at them: what fits and has contrast
may still be ugly.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import Site
from db.users import Accounts
from tests.browser.test_browser import node_modules
from tests.node.web.conftest import CHEAP
from tests.node.web.demo import PASSWORD, Demo, settings_for
from tests.node.web.history import fill_weeks
from tests.node.web.test_live import served

__all__ = ["node_modules"]

HERE = Path(__file__).parent
PAGES = (
    ("login", "/login", ""),
    ("worklist", "/", "rosa"),
    ("nothing-found", "/?q=nobody", "rosa"),
    ("study", "/studies/STUDY", "rosa"),
    ("try", "/try", "rosa"),
    ("account", "/account", "rosa"),
    ("error", "/users", "rosa"),
    ("system", "/system", "ada"),
    ("model", "/system/models/chest-classifier", "ada"),
    ("users", "/users", "ada"),
    ("audit", "/audit", "ada"),
    ("history", "/studies/STUDY/history", "ada"),
    ("api", "/api/v1/docs", "ada"),
)


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.peer("chromium")
@pytest.mark.peer("npm")
def test_every_page_in_each_language_theme_and_width(tmp_path: Path, node_modules: Path) -> None:
    demo = Demo(tmp_path / "store")
    demo.add_users(Accounts(demo.engine, CHEAP))
    fill_weeks(demo, datetime.now(UTC), a_week=15)
    studies = demo.fill(datetime.now(UTC))
    if shots := os.environ.get("PLEURA_SHOTS", ""):
        Path(shots).mkdir(parents=True, exist_ok=True)
    pages = [(name, path.replace("STUDY", str(studies[-2])), user) for name, path, user in PAGES]
    settings = settings_for(demo.folder, site=Site(time_zone="Europe/Berlin"))
    with served(settings) as port:
        environment = os.environ | {
            "BASE": f"http://127.0.0.1:{port}",
            "SHOTS": shots,
            "PASSWORD": PASSWORD,
            "CHROMIUM": shutil.which("chromium") or "",
            "PAGES": json.dumps(pages),
        }
        done = subprocess.run(
            ["node", "looks.js"], cwd=HERE, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 2 * len(PAGES)
