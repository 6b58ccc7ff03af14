"""From one mask to lesions, and from a segmenter's finding to the place of another model's.

A network that says *whether* and one that says *where* must not send two findings that may contradict each other. Of
both one goes out: the probability, the threshold and the answer are of the model that says whether, the place is of the
one that says where, with a probability for each lesion. The other finding is stored in shadow, so that the two can be
compared (``pleura drift``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from models.contract import Finding, Lesion, Mask, Mode, ModelSpec, PoolingSpec
from models.localise import region_masks
from models.lung_fields import LungFields
from models.pooling import pooled_values

MOST = 10
"""So many lesions are told apart at most; the last one is then all the others together."""


def with_lesions(finding: Finding, pooling: PoolingSpec, fields: LungFields | None = None) -> Finding:
    """A finding whose mask is told apart into lesions, most probable first; as it is where it shows no mask.

    A lesion's probability is what the map says inside of it, pooled as that of the image is. Masks that were clipped to
    the lungs have no region in both, so that no lesion reaches across the mediastinum.
    """
    if finding.mask is None or finding.heat_map is None:
        return finding
    rows, columns = finding.mask.shape
    values = np.asarray(Image.fromarray(finding.heat_map).resize((columns, rows), Image.Resampling.BILINEAR))
    lesions = [
        Lesion(mask, pooled_values(values[mask], values.size, pooling), fields.involvement(mask) if fields else None)
        for mask in _told_apart(finding.mask)
    ]
    return replace(finding, lesions=tuple(sorted(lesions, key=lambda lesion: -lesion.probability)))


def _told_apart(mask: Mask) -> list[Mask]:
    regions = region_masks(mask)
    if len(regions) <= MOST:
        return list(regions)
    return [*regions[: MOST - 1], np.logical_or.reduce(regions[MOST - 1 :])]


def placed(findings: Sequence[Finding], models: Sequence[ModelSpec]) -> tuple[Finding, ...]:
    """The findings of one image, with the places of those whose place another model says (``LabelSpec.place_of``).

    Nothing changes where either of the two is in shadow or has no answer: a place that has not been shown to hold goes
    nowhere, and a finding that is not sent needs none.
    """
    found = {(finding.model, finding.label): finding for finding in findings}
    for spec in models:
        for label in spec.labels:
            where, whether = found.get((spec.name, label.name)), found.get((label.place_of, label.name))
            if where is None or whether is None or Mode.SHADOW in (where.mode, whether.mode):
                continue
            if where.probability is None or whether.probability is None:
                continue
            found[label.place_of, label.name] = _with_place(whether, where)
            reason = f"only stored: its place is that of the finding of {whether.model}"
            found[spec.name, label.name] = replace(where, mode=Mode.SHADOW, reason=where.reason or reason)
    return tuple(found.values())


def _with_place(whether: Finding, where: Finding) -> Finding:
    """A present finding with another one's place; an absent one has none, whatever the other marks."""
    finding = replace(
        whether, mask=None, boxes=(), lesions=(), lungs=None, heat_map=where.heat_map, placed_by=where.model
    )
    if not whether.present:
        return finding
    if where.mask is None:
        return replace(finding, reason=whether.reason or f"present, but {where.model} marks no region")
    return replace(finding, mask=where.mask, lesions=where.lesions, lungs=where.lungs, hanging=where.hanging)
