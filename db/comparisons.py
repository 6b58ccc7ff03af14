"""Withdraws summaries whose prior has been rejected or put on hold since.

The study is open again, and its next summary compares it with what may still be compared. Where the hospital gives a
patient another ID or name, all their studies get it, so what was compared is still of one patient.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from db import tables
from db.records import FOR_SAFETY
from db.transitions import lock_study, touch_study
from db.withdrawals import withdraw_summaries


def take_back_comparisons(connection: Connection, prior_uid: str, why: str, actor: str, now: datetime) -> None:
    """Take back the summaries that compare a study with the one of this Study Instance UID, which ``why``."""
    study = tables.Study
    reason = f"The prior study that it was compared with {why}."
    compared = select(study.id).where(study.compared_with == prior_uid).order_by(study.id)
    for study_id in connection.scalars(compared).all():
        study_row = lock_study(connection, study_id)
        withdraw_summaries(connection, study_id, reason, FOR_SAFETY, actor, now)
        touch_study(connection, study_row, now, reopen=reason, compared_with="")
