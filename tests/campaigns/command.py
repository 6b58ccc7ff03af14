"""What the commands of all campaigns share: seed, progress, a folder, and the result as text, JSON and Markdown."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.disk import DiskError
from tests.campaigns.outcome import HEAD, Outcome


class SkippedError(Exception):
    """What a campaign needs cannot be had on this machine; the text says why."""


Say = Callable[[str], None]
"""Tells a person how far it is."""


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that each campaign has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same again (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument("--markdown", action="store_true", help="print the result as a row of docs/reliability.md")
    parser.add_argument("--keep", action="store_true", help="leave logs, database and store where the run had them")
    return parser


def run_campaign(arguments: argparse.Namespace, campaign: Callable[[Path, Say], Outcome]) -> None:
    """Run a campaign in a folder of its own, tell what it found, and end with 1 where anything is wrong.

    Where no disk can be mounted, or no network be made, a campaign that needs it is skipped, with the reason.
    """
    # Not below a home folder: PostgreSQL runs as a user of its own and must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="pleura-campaign-"))
    folder.chmod(0o755)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        outcome = campaign(folder, say)
        outcome.seconds = round(time.monotonic() - begun, 1)
    except (DiskError, SkippedError) as error:
        say(f"skipped: {error}")
        sys.exit(0)
    finally:
        if arguments.keep:
            say(f"everything lies in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(outcome.text())
    if arguments.markdown:
        print(f"{HEAD}\n{outcome.row()}")
    if arguments.json:
        outcome.write(arguments.json)
    sys.exit(bool(outcome.faults))


def run_counted(
    description: str | None,
    option: str,
    default: int,
    meaning: str,
    campaign: Callable[[Path, int, int, str, Say], Outcome],
) -> None:
    """The command of a campaign that does something so often, on either database."""
    parser = parser_of(description)
    parser.add_argument(f"--{option}", type=int, default=default, help=f"{meaning} (default {default})")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    given = parser.parse_args()
    run_campaign(given, lambda folder, say: campaign(folder, given.seed, getattr(given, option), given.database, say))
