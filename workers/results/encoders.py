"""The encoders of an image's result kinds, as :mod:`workers.results.result_kinds` lists them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from importlib import import_module

from pydicom.dataset import Dataset

from workers.results.encoder import Analysis, Encoder
from workers.results.result_kinds import RESULT_KINDS


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


_KINDS = tuple(kind for kind in RESULT_KINDS if kind.encoder)
ENCODERS = tuple(EncoderEntry(kind.name, kind.version, _of(kind.encoder)) for kind in _KINDS)


def load_encoders() -> None:
    """Import every encoder now: a worker does so when it is set up, not in the time of its first job."""
    for kind in _KINDS:
        import_module(f"workers.results.{kind.encoder}")


def encode_in_order(encoders: Iterable[EncoderEntry], analysis: Analysis, kinds: Collection[str]) -> dict[str, Dataset]:
    """Encode the wanted kinds in the order of ``encoders``; each sees what the ones before it made."""
    made: dict[str, Dataset] = {}
    for entry in encoders:
        encoded = entry.encode(replace(analysis, siblings=dict(made))) if entry.kind in kinds else None
        if encoded is not None:
            made[entry.kind] = encoded
    return made
