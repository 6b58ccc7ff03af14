"""Looking for the last prior chest radiograph of a new study's patient, and pulling it (docs/priors.md).

The scheduler's process does this in a thread of its own. Nothing waits for it but the summary of the study, and that no
longer than ``priors.wait_seconds``: an archive that hangs costs the comparison and nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial

from config.settings import Eligibility, Settings
from db import erasures
from db import priors as store
from db.database import Database
from db.patients import PatientIdentifier, PatientRules, plain_text
from db.priors import WantedPrior
from models.radiograph.body_parts import speaks_of_chest
from workers.clock import Clock
from workers.destinations.destination_kind import PeerError
from workers.destinations.dimse import Dimse
from workers.query_retrieve_scu import ArchiveStudy, open_archive
from workers.repeat import repeat_until
from workers.services.backfill import BackfillTools, Wait, backfill_tools, complete_study

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_TRIED = 3


def candidates(
    wanted: WantedPrior, found: Iterable[ArchiveStudy], patients: PatientRules, rules: Eligibility, today: date
) -> list[ArchiveStudy]:
    """The studies in ``found`` that may be the last prior chest radiograph of ``wanted``, the newest first.

    They are of the same patient (as :func:`db.queries.priors.prior_findings` decides it), of a day before that of the
    study and before ``today``, and no description says that they show something else than a chest.
    """
    person = tuple(map(plain_text, wanted.person))
    last = min(wanted.study_date or "", f"{today:%Y%m%d}")
    fit = {
        each.study_instance_uid: each
        for each in found
        if patients.same(PatientIdentifier(each.patient_id, each.issuer_of_patient_id), wanted.identifier)
        and _person(each) == person
        and each.study_instance_uid not in ("", wanted.study_instance_uid)
        and len(each.study_date) == len("YYYYMMDD")
        and each.study_date < last
        and speaks_of_chest(each.study_description, rules.body_parts, rules.descriptions) is not False
    }
    return sorted(fit.values(), key=lambda each: (each.study_date, each.study_time), reverse=True)


def _person(study: ArchiveStudy) -> tuple[str, ...]:
    return tuple(map(plain_text, (study.patient_name, study.patient_birth_date, study.patient_sex)))


@dataclass(frozen=True, slots=True)
class PriorSearch:
    """Searches the archive of ``priors.archive`` for the priors of new studies, one after the other."""

    settings: Settings
    database: Database
    tools: BackfillTools
    clock: Clock

    def once(self) -> None:
        """Search for every study that came since; end the searches whose process was lost."""
        wait = timedelta(seconds=self.settings.priors.wait_seconds)
        for wanted in self.database.read(store.wanted, self.clock(), wait):
            if self.tools.wait(0):
                return
            if self.database.write(store.begin, wanted.study_id, self.clock()):
                self._search(wanted)
        for study_id in self.database.read(store.lost, self.clock()):
            self.database.write(store.end_lost, study_id, self.clock())
            log.warning("study %d: the search for a prior was interrupted", study_id)

    def _search(self, wanted: WantedPrior) -> None:
        uid, problem = "", ""
        try:
            uid, problem = self._found(wanted)
        except PeerError as error:
            problem = f"{self.settings.priors.archive} cannot be searched for a prior: {error}"
            log.warning("study %d: %s", wanted.study_id, problem)
        finally:
            self.database.write(store.end, wanted.study_id, uid, problem, self.clock())

    def _found(self, wanted: WantedPrior) -> tuple[str, str]:
        """The Study Instance UID of the prior, which is here by now; or why there is none."""
        patients = self.database.rules.patients
        if patients.names_nobody(wanted.identifier.patient_id) or not any(wanted.person[:2]) or not wanted.study_date:
            return "", "the study does not say whose it is, or when it was made"
        today = self.clock().astimezone(self.settings.site.zone).date()
        listed = self._without_erased(self._listed(wanted, today))
        for study in candidates(wanted, listed, patients, self.settings.eligibility, today)[:_TRIED]:
            uid = study.study_instance_uid
            self.database.write(store.pulling, wanted.study_id, uid)
            try:
                complete_study(uid, self.settings.eligibility.modalities, self.tools, silent=True, for_prior=True)
            finally:  # where the archive sent a part of it, that is nobody's to read either
                self.database.write(store.take_off_worklist, uid, self.clock())
            if self.database.read(store.is_usable, uid):
                return uid, ""
        return "", "the archive holds no prior chest radiograph of this patient that can be analysed"

    def _without_erased(self, listed: Sequence[ArchiveStudy]) -> list[ArchiveStudy]:
        erased = self.database.read(erasures.left_out, [each.study_instance_uid for each in listed])
        return [each for each in listed if each.study_instance_uid not in erased]

    def _listed(self, wanted: WantedPrior, today: date) -> Sequence[ArchiveStudy]:
        first = today - timedelta(days=self.settings.priors.lookback_days)
        with self.tools.open_archive() as archive:
            return [
                study
                for modality in self.settings.eligibility.modalities
                for study in archive.studies_of(wanted.identifier.patient_id, first, today, modality)
            ]


def prior_search(settings: Settings, database: Database, clock: Clock, wait: Wait) -> PriorSearch | None:
    """The search of a node; None where no archive is configured."""
    archive = settings.destination(settings.priors.archive)
    if archive is None:
        return None
    calling = settings.listener.ae_title
    opening = partial(open_archive, Dimse(settings.tls), archive, calling, calling, settings.priors.timeout_seconds)
    tools = replace(backfill_tools(settings, database, archive, clock, wait), open_archive=opening)
    return PriorSearch(settings, database, tools, clock)


def start_prior_search(
    settings: Settings, database: Database, clock: Clock, stop: threading.Event
) -> threading.Thread | None:
    """Start the thread that looks for priors; None where no archive is configured."""
    search = prior_search(settings, database, clock, stop.wait)
    if search is None:
        return None
    thread = threading.Thread(target=repeat_until, args=(stop, search.once, _LOOK_SECONDS), name="priors", daemon=True)
    thread.start()
    return thread
