"""Coverage-guided fuzzing of what takes bytes of peers apart: ``python -P -m tests.fuzz.guided --seconds 60``.

Google's atheris (``pip install atheris``: Linux, no dependency of Pleura) mutates whatever reaches new branches, from a
corpus that the other generators here have made. An exception that the target does not promise ends it with 77 and
leaves the input in ``crash-…``; make a test of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["models.radiograph", "node.dicom", "node.hl7", "workers.hl7", "pydicom"]):
    from models.radiograph import codestream
    from tests.fuzz.reading import read_connection, read_received

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.outcome import Outcome
from tests.fuzz import mutations
from tests.fuzz.messages import framed, hl7_message

_FOLDER = Path(tempfile.mkdtemp(prefix="pleura-guided-"))


def header(data: bytes) -> None:
    """A data set in explicit VR, as the listener reads its header."""
    read_received(_FOLDER / "received.dcm", mutations.EXPLICIT, data)


def code_stream(data: bytes) -> None:
    """What a code stream claims of its size, before any decoder sees it."""
    for read in (codestream.jpeg_header, codestream.jpeg_2000_header):
        try:
            read(data)
        except codestream.CodestreamError:
            continue


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[int], bytes]]] = {
    "header": (header, lambda number: mutations.data_set(number)[1]),
    "hl7": (read_connection, lambda number: framed(Random(number), hl7_message(Random(number), number))),
    "code-stream": (code_stream, lambda number: mutations.code_stream(number)),
}
"""By name: what is called, and what makes its corpus."""


def guide(target: str, seed: int, seconds: int) -> None:
    """Fuzz one target in this process; does not return."""
    warnings.simplefilter("ignore")
    call, make = TARGETS[target]
    folder = _FOLDER / "corpus"
    folder.mkdir()
    for number in range(200):
        (folder / str(number)).write_bytes(make(number))
    options = [
        f"-seed={seed}",
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], call)
    atheris.Fuzz()


def run(folder: Path, seed: int, seconds: int, say: Say) -> Outcome:
    """Fuzz each target in a process of its own, whose files are in ``folder``: libFuzzer ends it without a word."""
    outcome = Outcome("coverage-guided fuzzing", seed)
    for target in TARGETS:
        say(f"{target}, {seconds} s")
        command = [sys.executable, "-P", "-m", "tests.fuzz.guided", "--target", target]
        done = subprocess.run(
            [*command, "--seed", str(seed), "--seconds", str(seconds)],
            capture_output=True,
            check=False,
            env=os.environ | {"TMPDIR": str(folder)},
        )
        text = done.stderr.decode(errors="replace")
        if done.returncode:
            outcome.faults.append(f"{target} ended with {done.returncode}: {text[-1500:]}")
        runs, covered = re.search(r"number_of_executed_units:\s+(\d+)", text), re.findall(r"cov: (\d+)", text)
        outcome.figures[target] = f"{runs.group(1) if runs else 0} runs, {covered[-1] if covered else 0} branches"
    return outcome


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="so long for each target (default 60)")
    parser.add_argument("--target", choices=TARGETS, help="this one only, in this process, as libFuzzer tells it")
    arguments = parser.parse_args()
    try:
        if arguments.target:
            guide(arguments.target, arguments.seed, arguments.seconds)
        else:
            run_campaign(arguments, lambda folder, say: run(folder, arguments.seed, arguments.seconds, say))
    finally:
        shutil.rmtree(_FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
