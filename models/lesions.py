"""From one mask to lesions: each of its connected regions counts for itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from models.calibration import calibrated
from models.contract import Finding, Lesion, Mask
from models.localise import region_masks
from models.lung_fields import LungFields
from models.model_spec import CalibrationSpec, PoolingSpec
from models.pooling import pooled_values

MOST = 10
"""So many lesions are told apart at most; the last one is then all the others together."""


def with_lesions(
    finding: Finding,
    pooling: PoolingSpec,
    fields: LungFields | None = None,
    calibration: CalibrationSpec | None = None,
) -> Finding:
    """A finding whose mask is told apart into lesions, most probable first; as it is where it shows no mask.

    A lesion's probability is what the map says inside of it, pooled and calibrated as that of the image is. Masks that
    were clipped to the lungs have no region in both, so that no lesion reaches across the mediastinum.
    """
    if finding.mask is None or finding.heat_map is None:
        return finding
    rows, columns = finding.mask.shape
    values = np.asarray(Image.fromarray(finding.heat_map).resize((columns, rows), Image.Resampling.BILINEAR))
    lesions = [
        Lesion(
            mask,
            calibrated(pooled_values(values[mask], values.size, pooling), calibration),
            fields.involvement(mask) if fields else None,
        )
        for mask in _separated(finding.mask)
    ]
    return replace(finding, lesions=tuple(sorted(lesions, key=lambda lesion: -lesion.probability)))


def _separated(mask: Mask) -> list[Mask]:
    regions = region_masks(mask)
    if len(regions) <= MOST:
        return list(regions)
    return [*regions[: MOST - 1], np.logical_or.reduce(regions[MOST - 1 :])]
