"""The statements of the transaction that records an instance, prepared once: they run for each C-STORE.

Other modules of this room prepare theirs with the functions here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, bindparam, exists, insert, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db import tables
from db.prepared_statements import Prepared, giving_id

_TEXT_LIMIT = 256

_STUDY: Any = tables.Study.__table__
IDENTITY = ("patient_id", "issuer_of_patient_id", "accession_number")


def insert_or_ignore(connection: Connection, table: Any) -> Any:
    """Give an INSERT for ``table`` that leaves a row which is there already as it is."""
    return or_ignore(connection.dialect.name, table)


def or_ignore(dialect: str, table: Any) -> Any:
    """The same for a database of this kind."""
    make: Any = postgresql_insert if dialect == "postgresql" else sqlite_insert
    return make(table).on_conflict_do_nothing()


def values_of(table: Any, *names: str) -> dict[str, Any]:
    """Named values for these columns of a table, of their types."""
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


def inserting(mapped: type[tables.Base], *names: str) -> Prepared:
    """INSERT with these columns, giving the id."""
    table: Any = mapped.__table__
    return Prepared(lambda dialect: giving_id(insert(table).values(values_of(table, *names)), dialect))


LOCK_STUDY = Prepared(
    lambda _: (
        select(_STUDY)
        .where(_STUDY.c.study_instance_uid == bindparam("study_instance_uid"))
        .with_for_update(key_share=True)
    )
)
INSERT_STUDY = Prepared(
    lambda dialect: giving_id(
        or_ignore(dialect, _STUDY).values(
            values_of(
                _STUDY,
                *("study_instance_uid", *IDENTITY, "patient_name", "patient_birth_date", "patient_sex"),
                *("study_date", "study_time", "study_description", "modalities", "state", "stat", "priority"),
                *("analysis", "reason", "due_at", "first_received_at", "last_activity_at"),
                *("images", "not_eligible", "activity"),
            )
        ),
        dialect,
    )
)


def _default_of(column: Any) -> Any:
    """What a column holds of a row that was inserted without it, as it is read."""
    if column.server_default is None:
        return None
    default = column.server_default.arg
    return default if isinstance(default, str) else {"false": False, "0": 0}[str(default)]


_DEFAULTS = {column.key: _default_of(column) for column in _STUDY.c}


def inserted_study(study_id: int, values: Mapping[str, Any]) -> Any:
    """The row that :data:`INSERT_STUDY` has made of these values, without reading its forty columns back."""
    return SimpleNamespace(**{**_DEFAULTS, **values, "id": study_id})


COUNT_IMAGE = Prepared(
    lambda _: (
        update(_STUDY)
        .where(_STUDY.c.id == bindparam("study_id"))
        .values(
            images=_STUDY.c.images + literal_column("1"),
            not_eligible=_STUDY.c.not_eligible + bindparam("not_eligible_increment"),
            activity=_STUDY.c.activity + literal_column("1"),
            last_activity_at=bindparam("now", type_=_STUDY.c.last_activity_at.type),
        )
    )
)
SET_MODALITIES = Prepared(
    lambda _: (
        update(_STUDY).where(_STUDY.c.id == bindparam("study_id")).values(modalities=bindparam("text_of_modalities"))
    )
)
SAME_SOP_INSTANCE_UID = Prepared(
    lambda _: select(
        tables.Instance.id,
        tables.Instance.digest,
        tables.Instance.study_id,
        tables.Instance.series_id,
        tables.Instance.sop_class_uid,
        tables.Instance.patient_id,
        tables.Instance.flag,
    ).where(tables.Instance.sop_instance_uid == bindparam("sop_instance_uid"))
)
KNOWN = Prepared(
    lambda _: select(
        *(
            exists().where(table.sop_instance_uid == bindparam("sop_instance_uid")).label(name)
            for name, table in (("came", tables.Instance), ("rejected", tables.Rejection), ("own", tables.Result))
        )
    )
)
OWN_RESULT = Prepared(
    lambda _: select(tables.Result.id).where(tables.Result.sop_instance_uid == bindparam("sop_instance_uid"))
)
REJECTION = Prepared(
    lambda _: (
        select(tables.Rejection.sentence)
        .where(tables.Rejection.sop_instance_uid == bindparam("sop_instance_uid"))
        .order_by(tables.Rejection.id)
    )
)
SERIES = Prepared(
    lambda _: select(tables.Series.id).where(
        tables.Series.study_id == bindparam("study_id"),
        tables.Series.series_instance_uid == bindparam("series_instance_uid"),
    )
)
INSERT_SERIES = inserting(
    tables.Series, "study_id", "series_instance_uid", "modality", "body_part", "series_description", "station_name"
)
INSERT_INSTANCE = inserting(
    tables.Instance,
    *("study_id", "series_id", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "digest", "path"),
    *(
        "byte_count",
        "patient_id",
        "view",
        "calling_ae_title",
        "state",
        "not_eligible_code",
        "not_eligible_reason",
        "flag",
        "route",
    ),
    "received_at",
)
INSERT_JOB = inserting(
    tables.Job,
    *("study_id", "instance_id", "pipeline", "revision", "state", "stat", "attempts", "dispatched_at", "timings"),
    *("queue", "created_at", "queued_at"),
)
_DESTINATION: Any = tables.Destination.__table__
KNOW_DESTINATION = Prepared(lambda dialect: or_ignore(dialect, _DESTINATION).values(values_of(_DESTINATION, "name")))
_EVENT: Any = tables.Event.__table__
INSERT_EVENT = Prepared(
    lambda _: insert(_EVENT).values(
        values_of(_EVENT, "study_id", "entity", "entity_id", "from_state", "to_state", "cause", "actor", "at")
    )
)


def clean(value: str) -> str:
    """Take out what a database cannot store as text (NUL, lone surrogates); cut what no header should hold."""
    if value.isascii() and "\0" not in value:
        return value[:_TEXT_LIMIT]
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:_TEXT_LIMIT]
