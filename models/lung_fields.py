"""Lung fields from the maps of the lung-field network, and their use for the mask of a finding.

The two lungs are found by where they lie in the picture. What anatomy says about sides (the heart, the aortic arch) is
only ever a witness against the header, never its replacement: see :mod:`workers.laterality`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

from models.contract import Hanging, LungInvolvement, LungShare, Mask, Pixels, Zone
from models.localise import region_masks
from models.model_spec import Code
from models.radiograph.geometry import Letterbox

LUNG = Code("39607008", "SCT", "Lung")
"""The site of findings that lie in the lungs by their very name."""
LUNG_FIELDS = "chest-lungs"
"""The bundled model that says where the lungs are."""
CUT = 0.5
LEAST_LUNG = 0.02
"""Share of the image that each lung fills at least; less is no lung, or a chest of which hardly anything is shown."""
LEAST_RATIO = 0.25
"""The smaller lung is at least this share of the larger: one that is white throughout may not be found."""
MARGIN = 0.025
"""By which share of the map's width a lung is widened before masks are clipped to it: the pleura counts as lung."""
SURE = 0.3
"""By how much the two lungs' mean share of *left* differs at least where anatomy is believed about the hanging."""
LEAST_ZONE = 0.15
"""A finding is in a zone where at least this share of what it covers of the lung lies."""
LEAST_PART, LEAST_SHARE = 0.05, 0.01
"""A finding is in a lung that holds this part of it, or of which it covers this share."""
LONGEST = 512


@dataclass(frozen=True, eq=False)
class LungFields:
    """Both lungs as ``bool[h, w]`` over the network's input: the one on the left of the picture, the one on its right.

    ``hanging`` is which way round the chest looks by its anatomy; ``letterbox`` says where the image lies. ``lung`` is
    the network's map ``float32[h, w]``, how likely each place is lung, ``model`` the network's name.
    """

    lungs: tuple[Mask, Mask]
    hanging: Hanging
    letterbox: Letterbox
    lung: Pixels
    model: str = ""

    @property
    def cut(self) -> bool:
        """Whether a lung reaches the edge of the image, so that part of it may not be shown."""
        rows, columns = _span(self.letterbox, self.lungs[0].shape)
        lungs = (self.lungs[0] | self.lungs[1])[rows, columns]
        return bool(lungs[[0, -1]].any() or lungs[:, [0, -1]].any())

    def drawn(self) -> tuple[Mask, Mask]:
        """Both lungs on the source grid, ``bool[rows, columns]``, as the network drew them; no pixel is of both.

        Their edge runs where the map passes :data:`CUT` between two of its places, so that it is no staircase of them.
        """
        first, second = (self.letterbox.mask_to_source(self._alone(lung), CUT) for lung in self.lungs)
        return first, second & ~first

    def _alone(self, lung: Mask) -> Pixels:
        """The map without what is lung elsewhere; what is filled of a lung belongs to it."""
        around = np.where(self.lung < CUT, self.lung, np.float32(0))
        return np.where(lung, np.maximum(self.lung, np.float32(CUT)), around)

    @cached_property
    def widened(self) -> tuple[Mask, Mask]:
        """Both lungs with a margin, which never touch: what is near both is in neither, unless it is lung itself."""
        first, second = self.lungs
        wide_first, wide_second = _dilated(first), _dilated(second)
        return first | (wide_first & ~_grown(wide_second)), second | (wide_second & ~_grown(wide_first))

    def clipped(self, mask: Mask) -> Mask:
        """What of a mask ``bool[rows, columns]`` lies in the widened lungs; no region of it lies in both.

        At least one place of the network's map lies between the lungs, and keeps them apart on any source grid.
        """
        clipped: Mask = mask & self._inside
        return clipped

    @cached_property
    def _inside(self) -> Mask:
        """The source pixels ``bool[rows, columns]`` of the widened lungs."""
        first, second = self.widened
        return self.letterbox.mask_to_source((first | second).astype(np.float32), CUT)

    @cached_property
    def _thinned(self) -> tuple[int, tuple[tuple[Mask, Mask], ...]]:
        """Every how many pixels count of an image, and each lung on that grid, as it is and widened."""
        rows, columns = self.letterbox.rows, self.letterbox.columns
        step = max(1, max(rows, columns) // LONGEST)
        grid = replace(self.letterbox, rows=len(range(0, rows, step)), columns=len(range(0, columns, step)))
        pairs = [
            [grid.mask_to_source(part.astype(np.float32), CUT) for part in pair]
            for pair in zip(self.lungs, self.widened, strict=True)
        ]
        return step, tuple((lung, wide) for lung, wide in pairs)

    def involvement(self, mask: Mask) -> LungInvolvement:
        """How much of each lung a mask ``bool[rows, columns]`` covers, and in which zones, on a thinned grid."""
        step, lungs = self._thinned
        first, second = (_share(mask[::step, ::step], lung, wide) for lung, wide in lungs)
        return LungInvolvement(first, second)


def lung_fields(maps: Pixels, letterbox: Letterbox) -> LungFields | None:
    """Both lungs from maps ``float32[h, w, 2]`` (of the patient's left and right lung); None where two are not found.

    Where a lung is, is said by both maps together; which of the two it is, by their difference. A network that does not
    know the side of a lung therefore still finds it.
    """
    left, right = maps[..., 0], maps[..., 1]
    likely = np.minimum(left + right, np.float32(1))
    regions = region_masks((likely >= CUT) & _shown(letterbox, left.shape))[:2]
    if len(regions) < 2 or regions[1].sum() < LEAST_LUNG * _shown(letterbox, left.shape).sum():
        return None
    if regions[1].sum() < LEAST_RATIO * regions[0].sum():
        return None
    first, second = sorted(regions, key=lambda region: float(np.nonzero(region)[1].mean()))
    if not _side_by_side(first, second):
        return None
    towards = [float(left[region].sum() / (left[region] + right[region]).sum()) for region in (first, second)]
    return LungFields((_filled(first), _filled(second)), _hanging(*towards), letterbox, likely)


def _hanging(first: float, second: float) -> Hanging:
    """From the mean share of *left* in the lung on the left of the picture, and in that on its right."""
    if abs(second - first) < SURE:
        return Hanging.UNSURE
    return Hanging.USUAL if second > first else Hanging.MIRRORED


def _side_by_side(first: Mask, second: Mask) -> bool:
    """Whether two regions share most of their height and little of their width: not one above or round the other."""
    return _shared(first, second, axis=1) > 0.5 > _shared(first, second, axis=0)


def _shared(first: Mask, second: Mask, axis: int) -> float:
    """The share of the smaller one's extent that two regions have in common, after summing over ``axis``."""
    ends = [np.flatnonzero(region.any(axis=axis))[[0, -1]] + (0, 1) for region in (first, second)]
    common = min(ends[0][1], ends[1][1]) - max(ends[0][0], ends[1][0])
    return float(common / min(ends[0][1] - ends[0][0], ends[1][1] - ends[1][0]))


def _shown(letterbox: Letterbox, shape: tuple[int, ...]) -> Mask:
    """Which places of a map lie on the image and not on the bars round it."""
    shown = np.zeros(shape, np.bool_)
    shown[_span(letterbox, shape)] = True
    return shown


def _span(letterbox: Letterbox, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a map that lie on the image."""
    down, across = shape[0] / letterbox.height, shape[1] / letterbox.width
    bottom, right = letterbox.top + letterbox.image_height, letterbox.left + letterbox.image_width
    rows = slice(round(letterbox.top * down), round(bottom * down))
    return rows, slice(round(letterbox.left * across), round(right * across))


def _filled(region: Mask) -> Mask:
    """A region without the holes inside: what is not reached from the edge of the picture."""
    padded = np.pad(~region, 1, constant_values=True)
    outside = region_masks(padded)
    return np.asarray(~next(part for part in outside if part[0, 0])[1:-1, 1:-1])


def _dilated(lung: Mask) -> Mask:
    """A lung widened by :data:`MARGIN` of the map's width."""
    return _grown(lung, max(1, round(MARGIN * lung.shape[1])))


def _grown(mask: Mask, by: int = 1) -> Mask:
    """A mask widened by some places in all directions."""
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * by + 1))).astype(np.bool_)


def _share(marked: Mask, lung: Mask, wide: Mask) -> LungShare:
    """How much of a lung is marked, and in which thirds of its height what is marked lies, the margin included."""
    # Counted, for numpy adds up truth values one by one.
    share = float(np.count_nonzero(marked & lung)) / max(1, int(np.count_nonzero(lung)))
    in_row = np.count_nonzero(marked & wide, axis=1)
    if in_row.sum() < LEAST_PART * np.count_nonzero(marked) and share < LEAST_SHARE:
        return LungShare(share)
    rows = np.flatnonzero(lung.any(axis=1))
    edges = np.linspace(rows[0], rows[-1] + 1, 4)[1:3]
    counts = np.bincount(np.searchsorted(edges, np.arange(len(in_row)) + 0.5), weights=in_row, minlength=3)
    zones = [zone for zone, count in zip(Zone, counts, strict=True) if count and count >= LEAST_ZONE * counts.sum()]
    return LungShare(share, tuple(zones))
