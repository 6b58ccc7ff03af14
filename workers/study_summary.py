"""Writes the summary of a complete study, as :mod:`workers.completion` decides it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from pydicom.dataset import Dataset

from config.settings import Settings
from db.database import Database
from db.queries import study_details
from db.queries.priors import comparable_findings, last_prior
from db.records import StudyFacts, TriageDecision
from db.shown_records import InstanceDetail, StudyDetail
from models.contract import NotAnalysed
from models.model_spec import Code
from models.pipeline import Pipeline
from models.radiograph.decode import UnreadablePixels
from workers.comparison import compare
from workers.completion import account_of, analysed_instance, jobs_of, latest_summary, needs_summary, patient_of
from workers.job_outcome import EncodedResult, as_file, kinds_wanted
from workers.not_analysed import header_shows_chest, not_analysed, not_analysed_images
from workers.pipeline_digest import name_of_analysis
from workers.results.encoder import Equipment
from workers.results.encoders import ENCODERS, encode_in_order
from workers.results.identity import Identity
from workers.results.patient import with_patient
from workers.results.source_image import read_header
from workers.results.study_account import KIND, Comparison, study_identity

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summariser:
    """Makes summaries. ``pipeline`` and ``digest`` are those that are active now."""

    settings: Settings
    database: Database
    pipeline: Pipeline
    digest: str
    equipment: Equipment

    def __call__(self, facts: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult]:
        """Make the summary of a study, the report of a chest study of which nothing was analysed, or nothing at all.

        Raises:
            OSError: the header of its image cannot be read from the store.
        """
        study = self.database.read(study_details.study_detail, facts.study_id)
        instance = analysed_instance(study)
        if instance is None or not needs_summary(study):
            return self._not_analysed(study, facts)
        try:
            header = read_header(self.settings.store.folder / instance.path)
        except UnreadablePixels as error:
            log.warning("study %d has no summary: %s", facts.study_id, error)
            return ()
        source = with_patient(header, patient_of(study, instance))
        comparison = self._comparison(study)
        made = as_file(KIND, self._encode(source, study, facts, decision, comparison))
        return (made if comparison is None else replace(made, compared_with=comparison.study_instance_uid),)

    def _not_analysed(self, study: StudyDetail, facts: StudyFacts) -> Sequence[EncodedResult]:
        """One coded result with the reason for a chest study, and a capture where a destination takes captures."""
        for instance, reason in not_analysed_images(study):
            try:
                read = read_header(self.settings.store.folder / instance.path)
            except UnreadablePixels as error:
                log.warning("image %d cannot stand for its study: %s", instance.id, error)
                continue
            header = with_patient(read, patient_of(study, instance))
            if jobs_of(study, instance) or header_shows_chest(header, self.settings.eligibility):
                return self._encode_not_analysed(study, instance, reason, header, facts.revision + 1)
        return ()

    def _encode_not_analysed(
        self, study: StudyDetail, instance: InstanceDetail, reason: NotAnalysed, header: Dataset, revision: int
    ) -> Sequence[EncodedResult]:
        # Another image or another reason is another work, and no job ever has this name for its own.
        named = name_of_analysis(self.digest, ("not analysed", reason.code, reason.sentence))
        identity = Identity(self.settings.site.uid_root, instance.sop_instance_uid, instance.digest, named, revision)
        created_at = study.last_activity_at.astimezone(self.settings.site.zone)
        analysis = not_analysed(header, reason, identity, self.equipment, created_at, self.settings.results)
        before = latest_summary(study)
        if before is not None:
            analysis = replace(
                analysis,
                previous={"sr": (before.sop_class_uid, before.sop_instance_uid)},
                previous_series={"sr": before.series_instance_uid},
            )
        kinds = {"sr"} | ({"sc"} & kinds_wanted(self.settings.destinations))
        return [as_file(kind, made) for kind, made in encode_in_order(ENCODERS, analysis, kinds).items()]

    def _encode(
        self,
        source: Dataset,
        study: StudyDetail,
        facts: StudyFacts,
        decision: TriageDecision,
        comparison: Comparison | None,
    ) -> Dataset:
        # Here, so that delivery workers and scheduler are spared highdicom (20 MB) until there is a summary to write.
        from workers.results.summary import encode_summary

        site, results = self.settings.site, self.settings.results
        account = account_of(study, decision, self._codes(), self._parents())
        account = replace(account, comparison=comparison)
        used = {(finding.model, finding.model_version) for job in study.jobs for finding in job.findings}
        return encode_summary(
            source,
            account,
            identity=study_identity(
                site.uid_root, str(source.StudyInstanceUID), account, self.digest, facts.revision + 1
            ),
            equipment=self.equipment,
            models=tuple(use for use in self.pipeline.uses if (use.name, use.version) in used),
            # Not now: a second attempt makes the same bytes. In the site's zone, as every other object is.
            created_at=study.last_activity_at.astimezone(site.zone),
            series_number_base=results.series_number_base,
            sr_storage=results.sr_storage,
            previous=latest_summary(study),
        )

    def _comparison(self, study: StudyDetail) -> Comparison | None:
        """What has changed since the last prior, where the site lets priors be looked for."""
        priors = self.settings.priors
        if not priors.archive or not study.row.study_date:
            return None
        study_id, since = study.row.study_id, study.last_activity_at - timedelta(days=priors.lookback_days)
        rules = self.database.rules.patients
        prior = self.database.read(last_prior, study_id, rules, f"{since:%Y%m%d}")
        if prior is None:
            return None
        found = self.database.read(comparable_findings, study_id)
        return compare(found, prior, self._codes(), self._parents())

    def _codes(self) -> dict[str, Code]:
        return {label.name: label.code for spec in self.pipeline for label in spec.labels}

    def _parents(self) -> dict[str, str]:
        return {label.name: label.parent for spec in self.pipeline for label in spec.labels if label.parent}
