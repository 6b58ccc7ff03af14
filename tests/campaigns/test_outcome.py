"""The figures in ``docs/reliability.md`` are those that the commands have written."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.outcome import DOCUMENT, RESULTS, Outcome, fill_in, read_outcome, table


def test_an_outcome_comes_back_from_its_file(tmp_path: Path) -> None:
    outcome = Outcome("chaos", 7, {"kill -9": 3}, ["P1 lacks a report"], 12.3)
    outcome.write(tmp_path / "deep" / "chaos.json")
    assert read_outcome(tmp_path / "deep" / "chaos.json") == outcome
    assert "| 7 | 12 s | kill -9: 3 | P1 lacks a report |" in table(tmp_path / "deep")
    assert "FAULT: P1 lacks a report" in outcome.text()


def test_the_table_in_the_docs_is_that_of_the_results() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert fill_in(text, table(RESULTS)) == text, "run: python -P -m tests.campaigns.outcome"


def test_a_traceback_takes_one_cell_of_the_table() -> None:
    outcome = Outcome("fuzz", 1, faults=['traceback: app\n  File "x" | y\n' + "z" * 999 + "\nClientDisconnect"])
    row = outcome.row()
    assert "\n" not in row
    assert row.count("|") == 7
    assert row.endswith("ClientDisconnect |")
    assert len(row) < 400
