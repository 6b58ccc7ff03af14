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

from config.integrations import HL7
from db.records import JobState
from node.dicom.received_header import UnreadableDataSetError, describe, read_header
from node.hl7.interpretation import interpret
from tests.fuzz import mutations
from tests.fuzz.bench import Bench, stored_as
from tests.fuzz.messages import framed, hl7_message
from tests.integration.pleura import status_of
from workers.hl7.message import MessageError, read_message
from workers.hl7.mllp import Deframer, FramingError

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
ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Analyse ``count`` broken images, and as many data sets and messages; how they ended, and what is wrong."""
    bench, ends, faults = Bench(folder), Counter[str](), list[str]()
    for number in range(count):
        syntax, body = mutations.broken_image(seed * 1_000_003 + number)
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


def read_headers(folder: Path, seed: int, count: int) -> list[str]:
    """Read so many headers of damaged data sets, as the listener does."""
    faults, path = list[str](), folder / "received.dcm"
    for number in range(count):
        syntax, body = mutations.data_set(seed * 1_000_003 + number)
        raw = stored_as(syntax, body)
        path.write_bytes(raw)
        try:
            header = read_header(path, syntax, len(raw) - len(body))
            describe(header, transfer_syntax=syntax, digest="", path="", byte_count=0, calling_ae_title="", stat=False)
        except UnreadableDataSetError:
            continue
        except Exception as error:
            faults.append(f"header {number}: {type(error).__name__}: {error}")
    return faults


def read_messages(seed: int, count: int) -> list[str]:
    """Take so many HL7 messages apart, as the listener does."""
    random, faults = Random(f"messages {seed}"), list[str]()
    for number in range(count):
        raw = framed(random, hl7_message(random, number))
        try:
            for found in Deframer(1 << 20).feed(raw):
                interpret(read_message(found), found, HL7())
        except (FramingError, MessageError):
            continue
        except Exception as error:
            faults.append(f"message {number}: {type(error).__name__}: {error}")
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
        faults += read_headers(Path(folder), arguments.seed, arguments.count)
    faults += read_messages(arguments.seed, arguments.count)
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
