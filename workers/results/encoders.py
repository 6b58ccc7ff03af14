"""The encoders of an image's result kinds, in the order of :mod:`workers.results.result_kinds`.

The version of an encoder is increased with every change of its output. The versions are part of the pipeline's digest,
so that different content never has an old UID.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from importlib import import_module

from pydicom.dataset import Dataset

from workers.results.encoder import Analysis, Encoder


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """One kind of result: its name in settings and database, the version of its encoder, and the encoder."""

    kind: str
    version: int
    encode: Encoder


def _of(module: str) -> Encoder:
    """The encoder of a module of this package, which is imported at the first call.

    The listener and the pages need only kinds and versions: they are spared highdicom (20 MB, 0.1 s).
    """

    def encode(analysis: Analysis) -> Dataset | None:
        encoder: Encoder = import_module(f"workers.results.{module}").encode
        return encoder(analysis)

    return encode


ENCODERS: tuple[EncoderEntry, ...] = (
    EncoderEntry("seg", 3, _of("segmentation")),
    EncoderEntry("sr", 4, _of("structured_report")),
    EncoderEntry("sc", 3, _of("secondary_capture")),
    EncoderEntry("gsps", 3, _of("presentation_state")),
)


def load_encoders() -> None:
    """Import every encoder now: a worker does so when it is set up, not in the time of its first job."""
    for module in ("segmentation", "structured_report", "secondary_capture", "presentation_state"):
        import_module(f"workers.results.{module}")


def encode_in_order(encoders: Iterable[EncoderEntry], analysis: Analysis, kinds: Collection[str]) -> dict[str, Dataset]:
    """Encode the wanted kinds in the order of ``encoders``; each sees what the ones before it made."""
    made: dict[str, Dataset] = {}
    for entry in encoders:
        encoded = entry.encode(replace(analysis, siblings=dict(made))) if entry.kind in kinds else None
        if encoded is not None:
            made[entry.kind] = encoded
    return made
