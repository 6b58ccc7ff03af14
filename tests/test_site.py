"""The documentation as a site: every link leads somewhere, and it can be read and searched without the Internet."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_site_is_built_without_a_warning_and_fetches_nothing() -> None:
    done = subprocess.run([sys.executable, ".ci/site"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = ROOT / "site"
    pages, built = (ROOT / "docs").glob("*.md"), site.glob("*.html")
    assert {path.stem for path in pages} - {path.stem for path in built} == {"README"}, "which is index.html"
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "assets/iframe-worker.js" in index
    assert not re.search(r"unpkg|googleapis|jsdelivr", index)
    reference = (site / "python-reference.html").read_text(encoding="utf-8")
    assert "read_radiograph" in reference
    assert "make_objects" in reference
