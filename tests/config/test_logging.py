from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

import pytest
from celery.worker.consumer.consumer import CONNECTION_ERROR

from config.logging import configure, job_in_log, keeping_warnings
from config.settings import Logs
from node.dicom.storage_scu import Peer, SendError, echo
from tests.ports import free_port


def test_the_job_is_in_every_line_of_its_block(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Logs(format="json"))
    with job_in_log(12):
        logging.getLogger("pleura.worker").info("encoded %d objects", 2)
    logging.getLogger("pleura.worker").info("idle")
    inside, outside = map(json.loads, capsys.readouterr().err.splitlines())
    assert (inside["job"], inside["message"], inside["level"]) == (12, "encoded 2 objects", "INFO")
    assert "job" not in outside


def test_text_lines_carry_the_job_and_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Logs())
    with job_in_log(7):
        try:
            raise OSError("disk full")
        except OSError:
            logging.getLogger("pleura").exception("not written")
    text = capsys.readouterr().err
    assert "job=7 not written" in text
    assert "OSError: disk full" in text


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_line_that_is_to_have_no_exception_is_written(
    capsys: pytest.CaptureFixture[str], format_: Literal["text", "json"]
) -> None:
    configure(Logs(format=format_))
    logging.getLogger("workers.celery").critical("cannot be set up", exc_info=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be set up" in line


def test_the_level_is_the_configured_one(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Logs(level="WARNING"))
    logging.getLogger("pleura").info("quiet")
    assert capsys.readouterr().err == ""


def test_nobody_forges_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Logs())
    forged = "2026-01-31T12:00:00.000Z ERROR pleura all is lost"
    try:
        raise ValueError(f"x\n{forged}")
    except ValueError:
        logging.getLogger("pleura").exception("from %s", f"A\r\n{forged}\x1b[2J\u2028")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(r"from A\r\n" + forged + r"\x1b[2J\u2028")
    assert all(line.startswith("  ") for line in lines[1:])
    assert f"  {forged}" in lines


def test_a_peer_that_cannot_be_reached_is_no_error_of_a_library_beside_our_own_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(Logs())
    with pytest.raises(SendError, match="cannot be reached"):
        echo(Peer("127.0.0.1", free_port(), "PACS", "PLEURA", 1.0))
    assert capsys.readouterr().err == ""
    logging.getLogger("pynetdicom.transport").error("another one")
    assert "another one" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_celery_writes_on_several_lines_is_one(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(Logs(format=form))
    name = "celery.worker.consumer.consumer"
    logging.getLogger(name).error(
        CONNECTION_ERROR, "redis://broker:6379/0", "refused", "Trying again in 2.00 seconds...\n"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "redis://broker:6379/0: refused. Trying again in 2.00 seconds..." in line
    assert "\\n" not in line


def test_libraries_that_quote_values_are_not_heard(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Logs())
    logging.getLogger("pydicom").warning("Invalid value for VR UI: 'Test^One'")
    logging.getLogger("pydicom").error("Test^One")
    assert capsys.readouterr().err == ""


def test_our_warnings_are_kept_apart_and_nothing_of_a_library(tmp_path: Path) -> None:
    """For the system page: no traceback, no line of a library, and a full disk is no reason to stop."""
    path = tmp_path / "part-here-listener-0.warnings"
    with keeping_warnings(path):
        configure(Logs())
        for name in ("pleura.admin", "node.dicom", "pydicom", "uvicorn.error"):
            logging.getLogger(name).error("from %s\nand more", name, exc_info=ValueError("Doe^Jane"))
        logging.getLogger("workers.delivery").info("nothing special")
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["logger"], one["message"]) for one in kept] == [
        ("pleura.admin", "from pleura.admin\\nand more"),
        ("node.dicom", "from node.dicom\\nand more"),
    ]
    assert "Doe" not in path.read_text()
    with keeping_warnings(tmp_path / "missing" / "x.warnings"):
        logging.getLogger("pleura.admin").warning("nobody hears an error of the file")


def test_the_kept_warnings_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.warnings"
    with keeping_warnings(path):
        for number in range(500):
            logging.getLogger("pleura.admin").warning("%d %s", number, "x" * 2000)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 130 * 1024
    assert "499 xxx" in path.read_text()
