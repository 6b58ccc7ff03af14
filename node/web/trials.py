"""“Try it”: a file that a user uploads is analysed by the admin page and deleted after some minutes.

Nothing of it is written to a file or to the database, and only its owner can see it. It is read in a separate process
(:mod:`node.web.image_reader`), which can write no file either.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from config.settings import Settings
from models.contract import Finding, ModelInput, NotAnalysed, Prediction
from models.model_spec import Mode
from node.web.image_process import is_dicom
from node.web.image_reader import ImageReader
from node.web.rendering import LONGEST, colour_of, overlay_png, packed_png, shown_size
from workers.job_outcome import finding_records
from workers.services.expected_route import (
    ExpectedRoute,
    ImageHeader,
    expected_route,
    models_chosen,
    plan_of,
)

_KEPT = 8
UNREADABLE = "unreadable"
"""Code of a file whose pixels cannot be read."""


Predict = Callable[[ModelInput, Collection[str] | None], Prediction]
"""Analyses one image with those of the loaded models (None: all), by the model states at that time."""


@dataclass(frozen=True, slots=True)
class TrialFinding:
    """One finding of a trial. ``overlay`` is a transparent PNG, empty if there is no region."""

    label: str
    probability: float | None
    threshold: float
    present: bool
    shadow: bool
    reason: str
    area_fraction: float | None
    colour: tuple[int, int, int]
    overlay: bytes = b""


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of a trial with its pictures, kept until ``expires_at``."""

    key: str
    owner: str
    file_name: str
    expires_at: datetime
    width: int
    height: int
    picture: bytes
    findings: tuple[TrialFinding, ...] = ()
    not_analysed: str = ""
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    route: ExpectedRoute | None = None
    """What would become of the file; None for a picture, which no peer can send."""


@dataclass(frozen=True, slots=True)
class TrialTools:
    """How files are read and followed. ``load`` loads the pipeline; it is called once, at the first trial."""

    reader: ImageReader
    load: Callable[[], Predict]
    settings: Settings

    def header(self, data: bytes) -> ImageHeader | None:
        """What the header of a DICOM file says; None for another file."""
        if not is_dicom(data):
            return None
        return self.reader.read_header(data, self.settings.eligibility, self.settings.triage.stat_descriptions)


class Trials:
    """Analyses files one at a time, and keeps the latest results."""

    def __init__(self, tools: TrialTools) -> None:
        self._tools = tools
        self._lasting = timedelta(minutes=tools.settings.admin.upload_minutes)
        self._predict: Predict | None = None
        self._predicting = threading.Lock()
        self._lock = threading.Lock()
        self._kept: dict[str, Trial] = {}

    def run(self, data: bytes, file_name: str, owner: str, now: datetime) -> Trial:
        """Analyse a file.

        Raises:
            node.web.image_process.ImageError: It is not a readable image.
        """
        tools = self._tools
        header, image = tools.header(data), tools.reader.read_upload(data)
        # Which finding is sent depends on which models run: none is left out afterwards.
        chosen = None if header is None else models_chosen(plan_of(header, tools.settings))
        with self._predicting:
            if self._predict is None:
                self._predict = tools.load()
            prediction = self._predict(image, chosen)
        trial = _trial(image, prediction, secrets.token_urlsafe(12), owner, file_name, now + self._lasting)
        if header is not None:
            findings = finding_records(prediction, image.spacing, None, image.patient_orientation)
            trial = replace(trial, route=expected_route(header, prediction, findings, tools.settings, now))
        with self._lock:
            self._remove(now)
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[trial.key] = trial
        return trial

    def route_without_image(self, data: bytes, problem: str, now: datetime) -> ExpectedRoute | None:
        """What would become of a DICOM file whose pixels cannot be read, for ``problem``; None for another file.

        Raises:
            node.web.image_process.ImageError: Its header cannot be read either.
        """
        header = self._tools.header(data)
        if header is None:
            return None
        unreadable = Prediction((0, 0), not_analysed=NotAnalysed(UNREADABLE, problem))
        return expected_route(header, unreadable, (), self._tools.settings, now)

    def find(self, key: str, owner: str, now: datetime) -> Trial | None:
        """The trial with this key if ``owner`` owns it and it has not expired; else None."""
        with self._lock:
            self._remove(now)
            trial = self._kept.get(key)
        return trial if trial is not None and trial.owner == owner else None

    def remove_expired(self, now: datetime) -> None:
        """Remove expired trials."""
        with self._lock:
            self._remove(now)

    def _remove(self, now: datetime) -> None:
        for key in [key for key, trial in self._kept.items() if trial.expires_at <= now]:
            del self._kept[key]


def _trial(
    image: ModelInput, prediction: Prediction, key: str, owner: str, file_name: str, expires_at: datetime
) -> Trial:
    rows, columns = image.shape
    width, height = shown_size(rows, columns, image.pixel_aspect, LONGEST)
    return Trial(
        key=key,
        owner=owner,
        file_name=file_name[:80],
        expires_at=expires_at,
        width=width,
        height=height,
        picture=packed_png(image),
        findings=tuple(
            _trial_finding(finding, index) for index, finding in enumerate(sorted(prediction.findings, key=_by_weight))
        ),
        not_analysed=prediction.not_analysed.sentence if prediction.not_analysed else "",
        notes=image.notes,
        timings=dict(prediction.timings),
    )


def _by_weight(finding: Finding) -> tuple[bool, bool, float]:
    return finding.mode is Mode.SHADOW, not finding.present, -(finding.probability or 0)


def _trial_finding(finding: Finding, index: int) -> TrialFinding:
    shown = finding.present and finding.mask is not None and bool(finding.mask.any())
    colour = colour_of(index)
    return TrialFinding(
        label=finding.label,
        probability=finding.probability,
        threshold=finding.threshold,
        present=finding.present,
        shadow=finding.mode is Mode.SHADOW,
        reason=finding.reason,
        area_fraction=float(finding.mask.mean()) if shown and finding.mask is not None else None,
        colour=colour,
        overlay=overlay_png(finding.mask, colour) if shown and finding.mask is not None else b"",
    )
