"""Benchmarks run by hand: what they import from the rooms must still be there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.figures import DOCUMENT, RESULTS, Figure, Measurement, read_measurement, spread, table
from tests.campaigns.outcome import fill_in

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("config", "db", "models", "workers", "node")
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _names(module: str) -> set[str]:
    """What a module of the rooms defines or imports, and the modules of a package."""
    place = ROOT / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    found = {path.stem for path in place.iterdir()} if place.is_dir() else set()
    for node in _tree(file).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_benchmark_imports_is_there(file: Path) -> None:
    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS
        for alias in node.names
        if alias.name not in _names(node.module)
    ]
    assert missing == []


def test_a_measurement_comes_back_from_its_file(tmp_path: Path) -> None:
    figure = Figure("receiving", "/s", 250.4, "Orthanc", 125.2, spread([2.0, 1.5, 2.5]), "a bare disk", 0.5)
    measurement = Measurement("ingest", "python -P -m benchmarks.ingest", (figure,), 3, (0.5, 1.0))
    measurement.write(tmp_path)
    assert read_measurement(tmp_path / "ingest.json") == measurement
    row = "| receiving | 250 /s | Orthanc: 125 /s | 2.00 (1.50 to 2.50) | 0.50 of a bare disk |"
    assert row in table(tmp_path)


def test_the_table_in_the_docs_is_that_of_the_results() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert fill_in(text, table(RESULTS)) == text, "run: python -P -m benchmarks.figures"
