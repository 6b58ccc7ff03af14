"""``pleura erase``: a study, or a patient, with everything that this node holds of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo

import click

from config.settings import Settings
from db import erasures
from db.audit import AuditEntry, write_entry
from db.audit_events import VIEW_STUDY
from db.compaction import is_left_to_a_person
from db.database import Database
from db.erasures import HeldObject, patient_entry
from db.errors import ErasureError, RecordNotFoundError
from db.queries.erasure import ErasurePlan
from node.cli.common import console, fail, json_option, print_json, program, settings_of
from node.cli.worklist import actor, find_detail, open_engine
from workers.clock import for_people, utc_now
from workers.enqueue import TaskQueue
from workers.erasing import Eraser, eraser_of
from workers.open_database import database_of
from workers.services.actions import Actions
from workers.services.erasure import (
    NamedPatient,
    checked_reason,
    confirmation_of,
    deidentified_folders,
    find_patient,
    held_by_others,
    noted_first,
    plans_of,
)

_LOOK_SECONDS = 0.5
_ALWAYS_STAYS = (
    "In any case stay: the audit trail, backups, logs of other systems, and the images at the archive that has sent "
    "them (docs/erasing.md)."
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be erased, in the words of the node."""

    settings: Settings
    database: Database
    plans: tuple[ErasurePlan, ...]
    patient: NamedPatient | None

    @property
    def confirmation(self) -> str:
        """What a person types to erase it: the patient ID, or the Study Instance UID where there is none."""
        return self.patient.identifier.patient_id if self.patient else confirmation_of(self.plans[0])


@click.command()
@click.argument("study", required=False)
@click.option("--patient", metavar="ID", help="All of the patient with this ID, instead of one STUDY.")
@click.option("--issuer", metavar="NAME", help="Who has given this ID, where several have.")
@click.option("--reason", metavar="TEXT", help="Why, without the patient's name: the audit trail keeps it.")
@click.option("--yes", is_flag=True, help="Erase without asking; --reason is required then.")
@json_option
@click.pass_context
def erase(
    context: click.Context,
    study: str | None,
    patient: str | None,
    issuer: str | None,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase STUDY, or a patient, with everything that this node holds: images, results, findings, history, files.

    Without --yes it says what would go, and which objects others hold that cannot be reached from here; in a terminal
    it then asks. Keep what it prints. What is under way is waited for. The audit trail keeps the patient ID, the Study
    Instance UID, who erased it and why. docs/erasing.md says what else stays, and how it is kept from coming back.

    A STUDY is a row ('#3', quoted), a UID, an accession number, or the UID of an image.
    """
    if bool(study) == bool(patient) or (issuer is not None and not patient):
        raise click.UsageError("name one STUDY, or a patient by --patient ID (with --issuer NAME)", ctx=context)
    if yes and not reason:
        raise click.UsageError("say why: --reason TEXT", ctx=context)
    settings = settings_of(context)
    try:
        wanted = _find(settings, study, patient, issuer)
        reason = checked_reason(reason, *wanted.plans) if reason else None
        if not as_json:
            _print_preview(wanted)
        if not (yes or (not as_json and _is_confirmed(wanted))):
            _end_without(wanted, as_json=as_json)
            return
        reason = reason or checked_reason(click.prompt("Reason (without the patient's name)"), *wanted.plans)
        _carry_out(wanted, reason, as_json=as_json)
    except ErasureError as error:
        fail(str(error))


def _find(settings: Settings, study: str | None, patient: str | None, issuer: str | None) -> _Wanted:
    database = database_of(settings, open_engine(settings))
    found = find_patient(database, patient, issuer) if patient else None
    study_ids = found.study_ids if found else (find_detail(database, study or "").row.study_id,)
    for study_id in study_ids:
        seen = AuditEntry(utc_now(), actor(), VIEW_STUDY, "study", study_id, detail="in a terminal, before erasing")
        database.write(write_entry, seen)
    return _Wanted(settings, database, plans_of(database, study_ids, utc_now()), found)


def _is_confirmed(wanted: _Wanted) -> bool:
    if not _is_terminal():
        return False
    text = f"Type {wanted.confirmation} to erase this (Enter leaves it)"
    return click.prompt(text, default="", show_default=False).strip() == wanted.confirmation


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _end_without(wanted: _Wanted, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(wanted, erased=False))
    else:
        _say(f"Nothing is erased. `{program()} erase … --reason TEXT --yes` does it.")


def _print_preview(wanted: _Wanted) -> None:
    for plan in wanted.plans:
        for line in _lines(plan, wanted):
            _say(line)
    if wanted.patient is not None:
        rows, identifier = wanted.patient.rows, wanted.patient.identifier
        _say(
            f"Patient {identifier.patient_id}: {_count(len(wanted.plans), 'study', 'studies')}; beside them "
            f"{_count(len(rows.orders), 'order')} without a study and {_count(len(rows.merges), 'merged identifier')}"
        )
    _say(_ALWAYS_STAYS)


def _lines(plan: ErasurePlan, wanted: _Wanted) -> Iterator[str]:
    zone = wanted.settings.site.zone
    yield (
        f"Study #{plan.study_id} of patient {plan.patient_id or '-'} {plan.patient_name}, accession "
        f"{plan.accession_number or '-'}, of {plan.study_date or 'an unknown date'}"
    )
    goes = [
        _count(plan.images, "image"),
        f"{_count(plan.results, 'result')} ({plan.byte_count / 1e6:.1f} MB)",
        _count(plan.jobs, "job"),
        _count(plan.findings, "finding"),
        _count(plan.orders, "order"),
        f"{_count(plan.events, 'line')} of history",
    ]
    yield f"  goes: {', '.join(goes)}"
    if plan.unsent or plan.untold:
        unsent = (_count(plan.unsent, "delivery", "deliveries"), _count(plan.untold, "notification"))
        yield f"  goes unsent: {', '.join(unsent)}"
    if plan.waits is not None:
        yield f"  is waited for: {plan.waits.why} (until {for_people(plan.waits.until, zone, seconds=True)} at most)"
    yield from _held_lines(held_by_others(plan, wanted.settings), noted_first(wanted.settings), zone)
    for one in plan.taken:
        yield f"  STAYS with {one.who}: {one.what}, {for_people(one.at, zone, seconds=True)}"
    for folder in deidentified_folders(plan, wanted.settings, wanted.database):
        yield f"  STAYS de-identified: {folder}"


def _held_lines(held: Sequence[HeldObject], noted: Sequence[str], zone: tzinfo) -> Iterator[str]:
    for name in dict.fromkeys(one.destination for one in held):
        there = [one for one in held if one.destination == name]
        first = ", which gets a rejection note first" if name in noted else ""
        yield f"  STAYS at {name}{first}: {_count(len(there), 'object')}"
        for one in there:
            yield f"    {one.sop_instance_uid}  {one.kind:<8} {_since(one, zone)}"


def _since(one: HeldObject, zone: tzinfo) -> str:
    if one.sent_at is None:
        return "may have arrived: it has not answered"
    verified = "" if one.verified_at is None else ", verified"
    return f"sent {for_people(one.sent_at, zone, seconds=True)}{verified}"


def _carry_out(wanted: _Wanted, reason: str, *, as_json: bool) -> None:
    database = wanted.database
    actions = Actions(wanted.settings, database, TaskQueue(wanted.settings.broker_url), actor(), datetime.now(UTC))
    for plan in wanted.plans:
        with suppress(RecordNotFoundError):  # somebody else has erased it meanwhile
            actions.erase(plan.study_id, reason)
    eraser = eraser_of(wanted.settings, database, utc_now)
    try:
        for plan in wanted.plans:
            _wait_for(plan, eraser, wanted, quiet=as_json)
        if wanted.patient is not None:
            who, rows = wanted.patient.identifier, wanted.patient.rows
            entry = patient_entry(who, rows, actor(), reason, utc_now())
            database.write(erasures.erase_patient_rows, who, database.rules.patients, entry)
        left = eraser.remove_files()
    except KeyboardInterrupt:
        fail("not erased yet; what was asked for stays on hold, and the scheduler erases it when it can", 130)
    _report(wanted, as_json=as_json)
    if left:
        fail(f"{left} files cannot be removed now; the log says why, and the scheduler tries again")


def _wait_for(plan: ErasurePlan, eraser: Eraser, wanted: _Wanted, *, quiet: bool) -> None:
    told = ""
    while (waiting := eraser.erase(plan.study_id)) is not None:
        if waiting.why != told and not quiet:
            until = for_people(waiting.until, wanted.settings.site.zone, seconds=True)
            _say(f"Study #{plan.study_id} waits: {waiting.why} (until {until} at most, unless it goes on)")
            told = waiting.why
        time.sleep(_LOOK_SECONDS)


def _report(wanted: _Wanted, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(wanted, erased=True))
        return
    for plan in wanted.plans:
        _say(f"Study #{plan.study_id} is erased.")
        for name, uids in _left(wanted, plan).items():
            known = {one.sop_instance_uid for one in plan.held if one.destination == name}
            for uid in uids:
                if uid not in known:
                    _say(f"  STAYS at {name}, sent meanwhile: {uid}")
    if wanted.patient is not None:
        _say(f"Patient {wanted.patient.identifier.patient_id} is erased.")
    if is_left_to_a_person(wanted.database.engine):
        _say(
            f"The database's free space may hold parts of it until they are overwritten; `{program()} db compact` "
            "makes its files anew, at a quiet hour."
        )


def _left(wanted: _Wanted, plan: ErasurePlan) -> dict[str, list[str]]:
    """What destinations hold when all is over, as the audit trail tells; not what stays here for whoever asks."""
    here = {each.name for each in wanted.settings.destinations if each.kind == "on-request"}
    left = wanted.database.read(erasures.left_at, plan.study_id)
    return {name: uids for name, uids in left.items() if name not in here}


def _as_json(wanted: _Wanted, *, erased: bool) -> dict[str, object]:
    studies = []
    for plan in wanted.plans:
        about = asdict(plan) | {
            "held": held_by_others(plan, wanted.settings),
            "deidentified": deidentified_folders(plan, wanted.settings, wanted.database),
            "noted_first": noted_first(wanted.settings),
        }
        studies.append(about | ({"left": _left(wanted, plan)} if erased else {}))
    rows = wanted.patient.rows if wanted.patient else None
    return {"erased": erased, "studies": studies, "beside_studies": rows}


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
