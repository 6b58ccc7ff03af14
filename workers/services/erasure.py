"""Who and what is erased: what a person names, what the others hold, and why. The page and the terminal ask here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from config.settings import Settings
from db import erasures
from db.audit import EXPORT_DEIDENTIFIED
from db.database import Database
from db.erasures import LONGEST_REASON, HeldObject, PatientRows
from db.errors import ErasureError
from db.patients import PatientIdentifier
from db.queries.erasure import ErasurePlan, erasure_plan
from db.search_words import fold

_SHORTEST_WORD = 3


@dataclass(frozen=True, slots=True)
class NamedPatient:
    """A patient by the one identifier that is meant, with their studies and what is known of them beside these."""

    identifier: PatientIdentifier
    study_ids: tuple[int, ...]
    rows: PatientRows


def find_patient(database: Database, patient_id: str, issuer: str | None) -> NamedPatient:
    """The patient with this ID; ``issuer`` says whose, where several have given it.

    Raises:
        ErasureError: nobody is known by it, it names nobody or several, or it was given up for another one.
    """
    rules, patient_id = database.rules.patients, patient_id.strip()
    if rules.names_nobody(patient_id):
        raise ErasureError(
            "this patient ID is shared by many patients (site.placeholder_patient_ids); name the studies"
        )
    issuers = database.read(erasures.issuers_of, patient_id, rules)
    if issuer is None and len(issuers) > 1:
        raise ErasureError(f"several have given the ID {patient_id}; say whose: {_options(issuers)}")
    wanted = PatientIdentifier(patient_id, (issuers[0] if issuers else "") if issuer is None else issuer)
    if not issuers or rules.issuer(wanted.issuer) not in issuers:
        known = f"; it is known with {_options(issuers)}" if issuers else ""
        raise ErasureError(f"nothing is here of a patient with the ID {patient_id}{known}")
    holds = database.read(erasures.holds_now, wanted, rules)
    if not rules.same(holds, wanted):
        raise ErasureError(f"the hospital has given this ID up for {_written(holds)}; name that one")
    study_ids = database.read(erasures.studies_of, wanted, rules)
    return NamedPatient(wanted, study_ids, database.read(erasures.patient_rows, wanted, rules))


def _options(issuers: Sequence[str]) -> str:
    return ", ".join(f"--issuer '{each}'" for each in issuers)


def _written(identifier: PatientIdentifier) -> str:
    return f"--patient '{identifier.patient_id}' --issuer '{identifier.issuer}'"


def plans_of(database: Database, study_ids: Sequence[int], now: datetime) -> tuple[ErasurePlan, ...]:
    """What would go of these studies, and what others hold of them."""
    return tuple(database.read(erasure_plan, study_id, now) for study_id in study_ids)


def confirmation_of(plan: ErasurePlan) -> str:
    """What a person types to erase a study: the patient ID, or the Study Instance UID of one without."""
    return plan.patient_id.strip() or plan.study_instance_uid


def check_confirmation(plan: ErasurePlan, typed: str) -> None:
    """Raises :class:`ErasureError` where something else was typed, perhaps on the page of another study."""
    if typed.strip() != confirmation_of(plan):
        raise ErasureError("what was typed is not the patient ID of this study")


def checked_reason(reason: str, *plans: ErasurePlan) -> str:
    """The reason as it is kept.

    Raises:
        ErasureError: there is none, or it names a patient: the audit trail keeps it when all else is erased.
    """
    reason = " ".join(reason.split())[:LONGEST_REASON]
    if not reason:
        raise ErasureError("say why: the audit trail keeps the reason")
    words = set(re.split(r"[^\w-]+", fold(reason)))
    if any(words & _words_of(plan) for plan in plans):
        raise ErasureError("the reason names the patient; the audit trail would keep that, so say it without")
    return reason


def _words_of(plan: ErasurePlan) -> set[str]:
    name = re.split(r"[\W_]+", fold(plan.patient_name))
    return {word for word in (*name, fold(plan.patient_id.strip())) if len(word) >= _SHORTEST_WORD}


def held_by_others(plan: ErasurePlan, settings: Settings) -> tuple[HeldObject, ...]:
    """What destinations hold that are not this node itself."""
    here = {each.name for each in settings.destinations if each.kind == "on-request"}
    return tuple(one for one in plan.held if one.destination not in here)


def noted_first(settings: Settings) -> tuple[str, ...]:
    """The destinations that get a rejection note about a study before it is erased."""
    return tuple(each.name for each in settings.destinations if each.erasure_notes)


def deidentified_folders(plan: ErasurePlan, settings: Settings, database: Database) -> tuple[str, ...]:
    """Folders with de-identified copies of the study, as far as they are known and the key is the one of that time."""
    folders = {
        str(each.folder)
        for each in settings.destinations
        if each.kind == "deidentified" and any(one.destination == each.name for one in plan.held)
    }
    exported = f"{EXPORT_DEIDENTIFIED}: to "
    folders |= {one.what.removeprefix(exported) for one in plan.taken if one.what.startswith(exported)}
    if not folders:
        return ()
    # The pseudonyms bring pydicom and the profile along, which a page or command without exports is spared.
    from workers.deidentification.study import deidentifier_of

    try:
        pseudonyms = deidentifier_of(settings.deidentification).pseudonyms
    except ValueError:
        return tuple(sorted(folders))
    patient = PatientIdentifier(plan.patient_id, plan.issuer_of_patient_id)
    subject = pseudonyms.subject(patient, plan.study_instance_uid, database.rules.patients)
    place = f"{subject.pseudonym}/{pseudonyms.uid(plan.study_instance_uid)}"
    return tuple(f"{folder}/{place}" for folder in sorted(folders))
