"""The registry of result kinds of an image, in the order of storing: a SEG is stored before the SR that references it.

The version of an encoder is increased with every change of its output. The versions are part of the pipeline's digest,
so that different content never has an old UID.
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
