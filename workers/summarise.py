"""Writing the summary of a settled study: the shell around :mod:`workers.settling`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from config.settings import Settings
from db.records import StudyDetail, StudyFacts, TriageDecision
from models.contract import Code
from models.pipeline import Pipeline
from models.radiograph.decode import UnreadablePixels
from workers.outcome import EncodedResult, as_file
from workers.results.contract import Equipment
from workers.results.patient import with_patient
from workers.results.summary import KIND, encode_summary, study_identity
from workers.settling import account_of, analysed_instance, latest_summary, needs_summary, patient_of
from workers.source import read_header

log = logging.getLogger(__name__)


class StudyReader(Protocol):
    """What this module needs of :class:`db.worklist.Worklist`."""

    def study_detail(self, study_id: int) -> StudyDetail:
        """Everything about a study."""
        ...


@dataclass(frozen=True, slots=True)
class Summariser:
    """Makes summaries. ``pipeline`` and ``digest`` are those that are active now."""

    settings: Settings
    worklist: StudyReader
    pipeline: Pipeline
    digest: str
    equipment: Equipment

    def __call__(self, facts: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult]:
        """Make the summary of a study, or nothing where none of its images was tried.

        Raises:
            OSError: the header of its image cannot be read from the store.
        """
        study = self.worklist.study_detail(facts.study_id)
        instance = analysed_instance(study)
        if instance is None or not needs_summary(study):
            return ()
        try:
            header = read_header(self.settings.store.folder / instance.path)
        except UnreadablePixels as error:
            log.warning("study %d has no summary: %s", facts.study_id, error)
            return ()
        source = with_patient(header, patient_of(study, instance))
        return (as_file(KIND, self._encode(source, study, facts, decision)),)

    def _encode(self, source: Dataset, study: StudyDetail, facts: StudyFacts, decision: TriageDecision) -> Dataset:
        site, results = self.settings.site, self.settings.results
        account = account_of(study, decision, self._codes(), self._parents())
        used = {(finding.model, finding.model_version) for job in study.jobs for finding in job.findings}
        return encode_summary(
            source,
            account,
            identity=study_identity(
                site.uid_root, str(source.StudyInstanceUID), account, self.digest, facts.revision + 1
            ),
            equipment=self.equipment,
            models=tuple(use for use in self.pipeline.uses if (use.name, use.version) in used),
            # Not now: a second attempt makes the same bytes. In the hospital's zone, as every other object is.
            created_at=study.last_activity_at.astimezone(),
            series_number_base=results.series_number_base,
            sr_storage=results.sr_storage,
            previous=latest_summary(study),
        )

    def _codes(self) -> dict[str, Code]:
        return {label.name: label.code for spec in self.pipeline for label in spec.labels}

    def _parents(self) -> dict[str, str]:
        return {label.name: label.parent for spec in self.pipeline for label in spec.labels}
