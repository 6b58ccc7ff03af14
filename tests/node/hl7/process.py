"""A part of Pleura as a process of its own, as ``pleura serve`` starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli_w

from db.database import Database
from db.engine import connect
from tests.orthanc import wait_until
from tests.rules import rules_that_notify
from workers.notifications.channels import notification_rules

REPOSITORY = Path(__file__).resolve().parents[3]
_READY = rb"listens on 127\.0\.0\.1:(\d+)"


def write_config(folder: Path, parts: dict[str, Any] | None = None) -> Path:
    """A configuration whose store is ``folder``, with an HL7 listener on a free port."""
    path = folder / "pleura.toml"
    whole = {"store": {"folder": str(folder)}, "hl7": {"port": 0}, **(parts or {})}
    path.write_text(tomli_w.dumps(whole))
    return path


class Process:
    """``pleura COMMAND``; as a context it runs until the block ends."""

    def __init__(self, config: Path, command: str) -> None:
        self.config = config
        self.command = command
        self.log = config.with_name(f"{command}.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)

    def start(self) -> None:
        """Start it; where it listens, wait until it does."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node.cli.main", "--config", str(self.config), self.command],
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                env=os.environ.copy(),
            )
        if self.command == "hl7":
            found = wait_until(
                lambda: re.search(_READY, self.log.read_bytes()[before:]),
                "the HL7 listener",
                seconds=120,
                alive=self.check_alive,
            )
            self.port = int(found.group(1))

    def check_alive(self) -> None:
        """Raise with its log where it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text())

    def end(self, number: int) -> int:
        """Send it a signal and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def database(self) -> Database:
        """The database that it works on, with its rules for notifications."""
        from config.settings import load

        settings = load(self.config)
        return Database(connect(settings.database_url), rules_that_notify(notification_rules(settings)))
