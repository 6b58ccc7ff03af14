"""The result of one check of ``pleura doctor``, and what a fault does to patients' studies."""

from __future__ import annotations

from dataclasses import dataclass, replace

EFFECTS = {
    "database": "No image is accepted, analysed or sent; senders keep theirs and try again. What was accepted is kept.",
    "broker": "Images are received and stored. They are analysed, and results sent, once it answers. Nothing is lost.",
    "listener": "Images may not arrive; senders keep theirs and try again.",
    "HL7 listener": "Orders, reports and corrections of patients do not arrive; their senders keep them.",
    "DICOMweb server": "Nothing is received by STOW-RS or given back by QIDO-RS and WADO-RS.",
    "admin page": "Nobody sees the worklist. Images are received and analysed, and results sent, all the same.",
    "workers": "Images are received and stored; they wait and are not analysed.",
    "model server": "Images wait for it, and are not analysed meanwhile.",
    "jobs": "These images are not analysed: read them without Pleura.",
    "destination": "Results for it may not be there yet: the page of a study says of each whether it was sent.",
    "deliveries": "These results are not there, and are not sent again by themselves: read the studies without Pleura.",
    "notification": "This channel may tell nobody of critical findings: look at the worklist.",
}
"""What it does to studies while a part is not right, by the first words of its name. Other checks say it themselves."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one part; ``remedy`` is empty if nothing needs to be done.

    ``effect``: what a fault of the part does to patients' studies meanwhile (:func:`with_effect`).
    """

    part: str
    ok: bool
    found: str
    remedy: str = ""
    effect: str = ""


def with_effect(check: Check) -> Check:
    """The same check; where it is not ok, with what that does to patients' studies."""
    named = (text for part, text in EFFECTS.items() if check.part == part or check.part.startswith(f"{part} "))
    return check if check.ok else replace(check, effect=check.effect or next(named, ""))
