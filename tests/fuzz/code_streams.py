"""Broken code streams on the worker's way: ``python -P -m tests.fuzz.code_streams --seed 1 --count 1000``.

A corpus is made with each encoder (JPEG Baseline and Lossless, JPEG-LS, JPEG 2000, HTJ2K, RLE) and deflated; then the
code stream, and nothing else, is damaged. No image may end as *failed*, take long, or end this process: decoders are
C, so the campaign runs this as a process of its own. What was seen goes to ``--json``: how the images ended, and which
share of the modules that read bytes of peers has run.
"""

from __future__ import annotations

import argparse
import ast
import json
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random

import coverage

from db.states import JobState
from tests.fuzz import mutations
from tests.fuzz.bench import Bench, stored_as
from tests.fuzz.messages import framed, hl7_message
from tests.fuzz.reading import read_connection, read_received
from tests.integration.pleura import status_of

READING = (
    "models/radiograph/codestream.py",
    "models/radiograph/data_set.py",
    "models/radiograph/decode.py",
    "node/dicom/received_header.py",
    "node/hl7/interpretation.py",
    "workers/hl7/message.py",
    "workers/hl7/mllp.py",
    "workers/results/source_image.py",
)
"""The modules that take bytes of peers apart."""
LONGEST_SECONDS = 10.0
_SPREAD = 1_000_003
ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Analyse ``count`` broken images, and as many data sets and messages; how they ended, and what is wrong."""
    bench, ends, faults = Bench(folder), Counter[str](), list[str]()
    for number in range(count):
        syntax, body = mutations.broken_image(seed * _SPREAD + number)
        begun = time.thread_time()
        jobs = bench.analyse(stored_as(syntax, body))
        seconds = time.thread_time() - begun
        if jobs.job.state is not JobState.DONE or jobs.outcome is None:
            faults.append(f"image {number} ({syntax}): {jobs.events}")
            continue
        if seconds > LONGEST_SECONDS:
            faults.append(f"image {number} ({syntax}) took {seconds:.0f} s")
        not_analysed = jobs.outcome.not_analysed
        ends[f"{syntax}: {'analysed' if not_analysed is None else not_analysed.code}"] += 1
    return ends, faults


def read_all(folder: Path, seed: int, count: int) -> list[str]:
    """Read the headers of so many damaged data sets, and as many HL7 messages."""
    faults = []
    for number in range(count):
        random = Random(f"message {seed} {number}")
        try:
            read_received(folder / "received.dcm", *mutations.data_set(seed * _SPREAD + number))
            read_connection(framed(random, hl7_message(random, number)))
        except Exception as error:
            faults.append(f"data set or message {number}: {type(error).__name__}: {error}")
    return faults


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    measured = coverage.Coverage(data_file=None, include=[str(ROOT / name) for name in READING])
    measured.start()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), arguments.seed + 1, min(200, arguments.count))
        before = status_of("self", "VmRSS")
        ends, faults = run(Path(folder), arguments.seed, arguments.count)
        grown = status_of("self", "VmRSS") - before
        faults += read_all(Path(folder), arguments.seed, arguments.count)
    measured.stop()
    seen = {name: _share(measured, ROOT / name) for name in READING}
    arguments.json.write_text(json.dumps({"ends": ends, "faults": faults, "seen": seen, "grown": grown}))


def _share(measured: coverage.Coverage, path: Path) -> float:
    """The share of the statements inside of functions that ran; what runs when a module is imported says nothing."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    inside = {line for each in functions for line in range(each.body[0].lineno, (each.end_lineno or 0) + 1)}
    _, statements, _, missing, _ = measured.analysis2(str(path))
    return round(1 - len(inside.intersection(missing)) / len(inside.intersection(statements)), 3)


if __name__ == "__main__":
    main()
