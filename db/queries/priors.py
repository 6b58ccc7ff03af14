"""Earlier studies of the same patient, and what they say: priors decide whether a finding is known already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from db.instance_flags import NOT_COUNTED
from db.patients import PatientRules, plain_text
from db.records import ComparableFinding, FindingRecord, PriorFinding, PriorStudy
from db.states import JobState
from db.tables import Finding, Instance, Job, PriorSearch, Series, Study
from db.user_tables import FeedbackRow, Verdict

_MOST = 500
_FINDING = tuple(FindingRecord.__dataclass_fields__)
_VERDICT = (
    select(FeedbackRow.verdict)
    .where(FeedbackRow.finding_id == Finding.id)
    .order_by(FeedbackRow.id.desc())
    .limit(1)
    .correlate(Finding)
    .scalar_subquery()
)


def prior_findings(
    connection: Connection, study: Any, labels: Collection[str], rules: PatientRules
) -> tuple[PriorFinding, ...]:
    """What studies of the same patient that came before ``study`` (a row of studies) say of ``labels``, latest first.

    The same patient has the same Patient ID of the same issuer, and the same name, birth date and sex: a finding that
    is taken for known raises no notification, so a doubt means another patient. A study on hold is neither compared nor
    a prior: its patient may be in doubt. A present finding whose last verdict is a rejection counts as absent.
    """
    identity = _certain_identity(study, rules)
    if not labels or identity is None:
        return ()
    of_study = (Study.id, Study.study_date, Study.first_received_at)
    names = (Study.patient_name, Study.patient_birth_date, Study.patient_sex)
    delivered = (Finding.shadow.is_(False), Finding.superseded.is_(False))
    query = (
        select(*of_study, *names, Finding.label, Finding.present, Finding.side, _VERDICT.label("verdict"))
        .join(Finding, Finding.study_id == Study.id)
        .where(*_earlier(study, rules), Finding.label.in_(labels), *delivered)
        .order_by(Study.first_received_at.desc(), Study.id.desc())
        .limit(_MOST)
    )
    # A study has as many findings of a label as it has images and models; one that holds is enough.
    sides: defaultdict[tuple[int, str, str, datetime], set[str]] = defaultdict(set)
    for row in connection.execute(query):
        if _identity(row) != identity:
            continue
        study_and_label = row.id, row.label, row.study_date, row.first_received_at
        sides[study_and_label] |= {row.side} if row.present and row.verdict != Verdict.REJECT.value else set()
    return tuple(
        PriorFinding(label, bool(found), study_date, received_at, _union(found))
        for (_, label, study_date, received_at), found in sides.items()
    )


def prior_studies(connection: Connection, study_id: int, rules: PatientRules, limit: int = 20) -> tuple[int, ...]:
    """The rows of the studies of the same patient that came before this one, or were pulled for it, latest first.

    Who is the same patient is decided as in :func:`prior_findings`; a study that is held has none.
    """
    table = Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id)).one()
    identity = _certain_identity(study, rules)
    if identity is None:
        return ()
    pulled = select(PriorSearch.prior_study_instance_uid).where(PriorSearch.study_id == study.id)
    query = (
        select(Study.id, Study.patient_name, Study.patient_birth_date, Study.patient_sex)
        .where(*_of_patient(study, rules), or_(_came_before(study), Study.study_instance_uid.in_(pulled)))
        .order_by(Study.first_received_at.desc(), Study.id.desc())
        .limit(_MOST)
    )
    return tuple(row.id for row in connection.execute(query) if _identity(row) == identity)[:limit]


def comparable_findings(connection: Connection, study_id: int) -> tuple[ComparableFinding, ...]:
    """The findings of a study that count and are not in shadow, each with its image."""
    query = (
        select(
            *(getattr(Finding, name) for name in _FINDING),
            _VERDICT.label("verdict"),
            Instance.view,
            Instance.sop_class_uid,
            Instance.sop_instance_uid,
            Series.series_instance_uid,
        )
        .join(Job, Job.id == Finding.job_id)
        .join(Instance, Instance.id == Job.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .where(
            Finding.study_id == study_id,
            Finding.shadow.is_(False),
            Finding.superseded.is_(False),
            Instance.flag.not_in(NOT_COUNTED),
        )
        .order_by(Finding.id)
    )
    return tuple(
        ComparableFinding(FindingRecord(*row[: len(_FINDING)]), row.verdict == Verdict.REJECT.value, *row[-4:])
        for row in connection.execute(query)
    )


def last_prior(connection: Connection, study_id: int, rules: PatientRules, since: str) -> PriorStudy | None:
    """The last analysed study of the same patient that was made before this one, and not before the day ``since``.

    Who is the same patient is decided as in :func:`prior_findings`. What counts is Study Date and Study Time, and not
    when a study came: a prior that was pulled came later.
    """
    table = Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id)).one()
    identity = _certain_identity(study, rules)
    if identity is None or not _is_date(study.study_date):
        return None
    analysed = select(Job.id).where(Job.study_id == Study.id, Job.state == JobState.DONE, Job.not_analysed_code == "")
    same_day = and_(Study.study_date == study.study_date, Study.study_time != "", Study.study_time < study.study_time)
    query = (
        select(table)
        .where(
            *_of_patient(study, rules),
            Study.id != study.id,
            or_(Study.study_date < study.study_date, same_day),
            Study.study_date >= since,
            analysed.exists(),
        )
        .order_by(Study.study_date.desc(), Study.study_time.desc(), Study.id.desc())
        .limit(_MOST)
    )
    for row in connection.execute(query).all():
        if _identity(row) == identity and _is_date(row.study_date):
            return PriorStudy(row.study_instance_uid, row.study_date, comparable_findings(connection, row.id))
    return None


def _earlier(study: Any, rules: PatientRules) -> tuple[ColumnElement[bool], ...]:
    """Studies under the same Patient ID of the same issuer that came before ``study`` and are not held."""
    return (*_of_patient(study, rules), _came_before(study))


def _came_before(study: Any) -> ColumnElement[bool]:
    return or_(
        Study.first_received_at < study.first_received_at,
        and_(Study.first_received_at == study.first_received_at, Study.id < study.id),
    )


def _of_patient(study: Any, rules: PatientRules) -> tuple[ColumnElement[bool], ...]:
    """Studies under the same Patient ID of the same issuer as ``study`` that are not held."""
    return (
        Study.patient_id == study.patient_id,
        Study.issuer_of_patient_id.in_(rules.spellings(study.issuer_of_patient_id)),
        Study.on_hold.is_(False),
    )


def _identity(row: Any) -> tuple[str, str, str]:
    """Name, birth date and sex as they are compared; ``row`` has these columns of studies."""
    return plain_text(row.patient_name), plain_text(row.patient_birth_date), plain_text(row.patient_sex)


def _is_date(text: str) -> bool:
    """Whether a header's Study Date is one (PS3.5 6.2, DA): what is no date can neither be shown nor sorted."""
    try:
        return len(text) == len("YYYYMMDD") and bool(datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False


def _certain_identity(study: Any, rules: PatientRules) -> tuple[str, str, str] | None:
    """Name, birth date and sex by which other studies of the patient are found; None where the patient is in doubt."""
    identity = _identity(study)
    in_doubt = study.on_hold or rules.names_nobody(study.patient_id) or not _says_who(identity)
    return None if in_doubt else identity


def _says_who(identity: tuple[str, str, str]) -> bool:
    """Whether there is a name or a birth date: a sex alone tells no two patients apart."""
    return bool(identity[0] or identity[1])


def _union(sides: set[str]) -> str:
    """The side of several findings together: unknown where that of one is, none where one shows no place."""
    if not sides or "unknown" in sides:
        return "unknown" if sides else ""
    if "" in sides:
        return ""
    return sides.pop() if len(sides) == 1 else "both"
