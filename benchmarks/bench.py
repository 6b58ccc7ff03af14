"""Every comparison with a named peer, one after the other: ``make bench``.

    python -P -m benchmarks.bench [--only ingest end-to-end inference worklist] [--quick]

Prints one table, and writes it to ``docs/benchmarks.md`` by way of ``benchmarks/results``. On a machine that others use
at the same time, run it as ``chrt -r 1 python …``: its processes come first then. The results say so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from benchmarks import end_to_end, inference, ingest, worklist
from benchmarks.figures import RESULTS, Measurement, table, write_document

PEERS = [ingest.REFERENCE, "Pleura", "Orthanc"]

BENCHMARKS: Mapping[str, Callable[[bool], Measurement]] = {
    "ingest": lambda quick: ingest.measure_all(3 if quick else 5, quick, PEERS, [1, 4, 8]),
    "end-to-end": lambda quick: end_to_end.measure(3, 20, 60) if quick else end_to_end.measure(5, 30, 100),
    "inference": lambda quick: inference.measure(10 if quick else 30),
    "worklist": lambda quick: worklist.measurement(100_000 if quick else 1_000_000, 200 if quick else 2000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer images, rounds and studies")
    arguments = parser.parse_args()
    for name in arguments.only:
        print(f"{name} …", flush=True)
        BENCHMARKS[name](arguments.quick).write()
    write_document()
    print(table(RESULTS))


if __name__ == "__main__":
    main()
