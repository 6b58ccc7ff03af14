"""Every kind of result that one image gives, in the order of storing: a SEG goes before the SR that refers to it.

A version grows with every change of what an encoder writes. The versions are part of the pipeline's digest, so that
other content never appears under an old UID.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.results import presentation_state, secondary_capture, segmentation, structured_report
from workers.results.encoder import Encoder


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """One kind of result: its name in settings and database, the version of its encoder, and the encoder."""

    kind: str
    version: int
    encode: Encoder


ENCODERS: tuple[EncoderEntry, ...] = (
    EncoderEntry("seg", 2, segmentation.encode),
    EncoderEntry("sr", 3, structured_report.encode),
    EncoderEntry("sc", 2, secondary_capture.encode),
    EncoderEntry("gsps", 2, presentation_state.encode),
)
