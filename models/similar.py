"""The stored cases of a classifier by retrieval: what each row of its index is called, and which are shown.

The index is a CSV file beside the manifest: ``reference`` (a pseudonym of the image, never the name of its file) and a
column of 0, 1 or nothing for each label.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.contract import Pixels, SimilarCase
from models.manifest import ManifestError
from models.model_spec import LabelSpec

SHOWN = 5


@dataclass(frozen=True, slots=True)
class StoredCase:
    """One row of an index: its name, and 1.0 or 0.0 for each label that is known."""

    reference: str
    labels: Mapping[str, float]


def write_index(path: Path, labels: Sequence[str], cases: Iterable[StoredCase]) -> None:
    """Write an index in the order of the network's rows."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["reference", *labels])
        for case in cases:
            writer.writerow(
                [case.reference, *(f"{case.labels[name]:g}" if name in case.labels else "" for name in labels)]
            )


def read_index(path: Path) -> tuple[StoredCase, ...]:
    """Read an index.

    Raises:
        ManifestError: it cannot be read or holds something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
        if "reference" not in (reader.fieldnames or ()):
            raise ValueError("no column 'reference'")
        return tuple(
            StoredCase(row.pop("reference"), {name: float(value) for name, value in row.items() if value})
            for row in rows
        )
    except (OSError, UnicodeDecodeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path}: is no index of stored cases ({error})") from error


def similar_cases(
    answer: Mapping[str, Pixels], index: Sequence[StoredCase], label: LabelSpec
) -> tuple[SimilarCase, ...]:
    """The nearest stored cases of which this label is known, nearest first, each with what it was called.

    Rows beyond the index are left out: the executor has checked shapes, not what a foreign network means by them.
    """
    if "neighbours" not in answer or "neighbour_distances" not in answer:
        return ()
    found = []
    for row, distance in zip(answer["neighbours"].tolist(), answer["neighbour_distances"].tolist(), strict=True):
        if 0 <= row < len(index) and label.name in index[int(row)].labels:
            case = index[int(row)]
            word = label.name if case.labels[label.name] >= 0.5 else f"no {label.name}"
            found.append(SimilarCase(case.reference, word, max(0.0, float(distance))))
    return tuple(found[:SHOWN])
