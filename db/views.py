"""The SQL views: the worklist for psql and sqlite3, and reports without the identity of a patient.

They hold no data, so every migration makes them anew (``db/migrations/env.py``): a changed view needs no step of its
own. The SQL is the same on both databases but for macros: ``DAY(time)`` and ``MONTH(time)`` (UTC), and
``SECONDS(from, to)``, a number with fractions. ``MEDIAN`` is that of the column ``seconds`` by its ``place`` among
``number`` rows in rising order, since SQLite has no function for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from db import audit_events
from db.instance_flags import NOT_COUNTED

LOOKED = (
    *(audit_events.START, audit_events.STOP, audit_events.LOG_IN, audit_events.LOG_OUT, audit_events.LOG_IN_FAILED),
    *(audit_events.RECEIVED, audit_events.BEGIN_SENDING, audit_events.SENT, audit_events.QUERIED),
    *(audit_events.READ_TRAIL, audit_events.EXPORT_TRAIL, audit_events.VERIFIED),
    *(audit_events.REJECTED, audit_events.CLOSED, audit_events.VIEW_STUDY),
    *("export worklist", "try it", "test route", "C-ECHO"),
)
"""Actions of the audit trail that change nothing."""

_MEDIAN = "avg(seconds) FILTER (WHERE place IN ((number + 1) / 2, (number + 2) / 2))"
_MACROS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        r"DAY\(([^()]+)\)": r"date(\1)",
        r"MONTH\(([^()]+)\)": r"strftime('%Y-%m', \1)",
        r"SECONDS\(([^(),]+), ([^()]+)\)": r"((julianday(\2) - julianday(\1)) * 86400.0)",
    },
    "postgresql": {
        r"DAY\(([^()]+)\)": r"CAST(\1 AT TIME ZONE 'UTC' AS date)",
        r"MONTH\(([^()]+)\)": r"to_char(\1 AT TIME ZONE 'UTC', 'YYYY-MM')",
        r"SECONDS\(([^(),]+), ([^()]+)\)": r"CAST(extract(epoch FROM \2 - \1) AS double precision)",
    },
}


@dataclass(frozen=True, slots=True)
class View:
    """One view: what a row of it is, and what each column means. ``personal``: it may name patients."""

    name: str
    comment: str
    columns: Mapping[str, str]
    query: str
    personal: bool = False


def in_dialect(sql: str, dialect: str) -> str:
    """``sql`` with its macros written for ``dialect`` (sqlite, postgresql)."""
    for pattern, replacement in _MACROS[dialect].items():
        sql = re.sub(pattern, replacement, sql)
    lists = {"MEDIAN": _MEDIAN, "NOT_COUNTED": _quoted(NOT_COUNTED), "LOOKED": _quoted(LOOKED)}
    return re.sub("|".join(lists), lambda match: lists[match[0]], sql)


def drop_views(connection: Connection) -> None:
    """Drop every view that is there, those first that read others."""
    for view in reversed(VIEWS):
        _execute(connection, f"DROP VIEW IF EXISTS {view.name}")


def create_views(connection: Connection) -> None:
    """Create every view; PostgreSQL keeps the comments."""
    for view in VIEWS:
        _execute(connection, f"CREATE VIEW {view.name} AS {in_dialect(view.query, connection.dialect.name)}")


def _execute(connection: Connection, sql: str) -> None:
    connection.execution_options(no_parameters=True).exec_driver_sql(sql)


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_WORKLIST = View(
    "worklist",
    "The worklist: one row a study, with the identity of its patient.",
    {
        "study_id": "Row number of the study.",
        "study_instance_uid": "Study Instance UID.",
        "patient_id": "Patient ID.",
        "patient_name": "Patient's Name.",
        "accession_number": "Accession Number.",
        "study_date": "Study Date, YYYYMMDD.",
        "study_description": "Study Description.",
        "state": "open or complete.",
        "priority": "critical, urgent or routine.",
        "analysis": "waiting, analysed, not analysed or failed.",
        "on_hold": "True: it waits for a person.",
        "reason": "Why it has this priority, is not analysed or is on hold.",
        "stat": "True: the configuration makes it urgent.",
        "received_at": "When its first image arrived.",
        "due_at": "When it should be read at the latest.",
        "images": "Images that count.",
        "not_eligible": "Images among them that are not eligible.",
        "reported_at": "When it was reported. NULL: unreported.",
        "reported_by": "Who said so.",
        "deliveries_open": "Deliveries that wait, are being sent or are on hold.",
        "deliveries_failed": "Deliveries that were given up.",
        "findings_present": "Findings that are present, without those in shadow.",
    },
    """
SELECT
    s.id AS study_id,
    s.study_instance_uid,
    s.patient_id,
    s.patient_name,
    s.accession_number,
    s.study_date,
    s.study_description,
    s.state,
    s.priority,
    s.analysis,
    s.on_hold OR s.correction <> '' AS on_hold,
    CASE WHEN s.on_hold AND s.correction <> '' THEN s.hold_reason || '; ' || s.correction
        WHEN s.on_hold THEN s.hold_reason WHEN s.correction <> '' THEN s.correction ELSE s.reason END AS reason,
    s.stat,
    s.first_received_at AS received_at,
    s.due_at,
    s.images,
    s.not_eligible,
    s.reported_at,
    s.reported_by,
    (SELECT count(*) FROM deliveries d
        WHERE d.study_id = s.id AND d.state IN ('pending', 'sending', 'on_hold')) AS deliveries_open,
    (SELECT count(*) FROM deliveries d
        WHERE d.study_id = s.id AND d.state = 'failed') AS deliveries_failed,
    (SELECT count(*) FROM findings f
        WHERE f.study_id = s.id AND f.present AND NOT f.shadow AND NOT f.superseded) AS findings_present
FROM studies s
""",
    personal=True,
)

_STUDIES_PER_DAY = View(
    "studies_per_day",
    "Studies received a day by modality and station; a study of two stations counts at each.",
    {
        "day": "Day on which the first image of the study arrived.",
        "modality": "Modality of the series.",
        "station_name": "Station Name of the series; empty where the images have none.",
        "studies": "Studies.",
        "images": "Images that count: without repeats and replaced ones.",
        "analysed": "Studies of which a frontal image was analysed.",
        "not_analysed": "Studies of which no image was analysed.",
        "failed": "Studies whose analysis failed.",
        "critical": "Studies of critical priority.",
    },
    """
SELECT
    DAY(s.first_received_at) AS day,
    e.modality,
    e.station_name,
    count(DISTINCT s.id) AS studies,
    count(*) AS images,
    count(DISTINCT s.id) FILTER (WHERE s.analysis = 'analysed') AS analysed,
    count(DISTINCT s.id) FILTER (WHERE s.analysis = 'not analysed') AS not_analysed,
    count(DISTINCT s.id) FILTER (WHERE s.analysis = 'failed') AS failed,
    count(DISTINCT s.id) FILTER (WHERE s.priority = 'critical') AS critical
FROM studies s
JOIN instances i ON i.study_id = s.id
JOIN series e ON e.id = i.series_id
WHERE i.flag NOT IN (NOT_COUNTED)
GROUP BY DAY(s.first_received_at), e.modality, e.station_name
""",
)

_STUDY_TIMES = View(
    "study_times",
    "When each study was received, analysed, delivered and reported: one row a study. NULL: not yet.",
    {
        "study_id": "Row number of the study.",
        "day": "Day on which its first image arrived.",
        "priority": "critical, urgent or routine.",
        "analysis": "waiting, analysed, not analysed or failed.",
        "received_at": "When its first image arrived.",
        "analysed_at": "When the first job of the study was done.",
        "delivered_at": "When a destination took its first object.",
        "reported_at": "When it was reported.",
        "seconds_to_analysed": "Seconds from the first image to that.",
        "seconds_to_delivered": "Seconds from the first image to that.",
        "seconds_to_reported": "Seconds from the first image to that; below 0 where the report came first.",
    },
    """
SELECT
    t.*,
    SECONDS(t.received_at, t.analysed_at) AS seconds_to_analysed,
    SECONDS(t.received_at, t.delivered_at) AS seconds_to_delivered,
    SECONDS(t.received_at, t.reported_at) AS seconds_to_reported
FROM (
    SELECT
        s.id AS study_id,
        DAY(s.first_received_at) AS day,
        s.priority,
        s.analysis,
        s.first_received_at AS received_at,
        (SELECT min(e.at) FROM events e
            WHERE e.study_id = s.id AND e.entity = 'job' AND e.to_state = 'done') AS analysed_at,
        (SELECT min(e.at) FROM events e
            WHERE e.study_id = s.id AND e.entity = 'delivery' AND e.to_state = 'sent') AS delivered_at,
        s.reported_at
    FROM studies s
) t
""",
)

_TURNAROUND_PER_DAY = View(
    "turnaround_per_day",
    "How long studies took from their first image to each stage, by the day of that image.",
    {
        "day": "Day on which the first image arrived.",
        "stage": "analysed, delivered or reported.",
        "studies": "Studies that have come so far; reports that came before the images are left out.",
        "median_seconds": "Half of them took no longer.",
        "p95_seconds": "95 of 100 of them took no longer.",
    },
    """
WITH reached AS (
    SELECT day, 'analysed' AS stage, seconds_to_analysed AS seconds FROM study_times
    UNION ALL
    SELECT day, 'delivered', seconds_to_delivered FROM study_times
    UNION ALL
    SELECT day, 'reported', seconds_to_reported FROM study_times
), ranked AS (
    SELECT
        day, stage, seconds,
        row_number() OVER (PARTITION BY day, stage ORDER BY seconds) AS place,
        count(*) OVER (PARTITION BY day, stage) AS number
    FROM reached
    WHERE seconds >= 0
)
SELECT
    day,
    stage,
    count(*) AS studies,
    MEDIAN AS median_seconds,
    min(seconds) FILTER (WHERE place * 100 >= number * 95) AS p95_seconds
FROM ranked
GROUP BY day, stage
""",
)

_DELIVERIES_PER_DAY = View(
    "deliveries_per_day",
    "How deliveries went, by the day on which the result was made, destination and kind of result.",
    {
        "day": "Day on which the delivery was made.",
        "destination": "Name of the destination.",
        "kind": "Kind of result: seg, sr, summary ...",
        "deliveries": "Deliveries.",
        "taken": "Those that the destination took.",
        "verified": "Those of which it has confirmed that it holds them.",
        "waiting": "Those that wait or are being sent.",
        "on_hold": "Those that wait for a person.",
        "failed": "Those that were given up.",
        "not_sent": "Those that are not to be sent: recorded only, or withdrawn.",
        "attempts": "Attempts to send.",
        "median_seconds": "Half of those taken took no longer, from result to acceptance.",
    },
    """
WITH ranked AS (
    SELECT
        DAY(d.created_at) AS day, d.destination, r.kind, d.state, d.attempts, d.sent_at,
        SECONDS(d.created_at, d.sent_at) AS seconds,
        row_number() OVER (
            PARTITION BY DAY(d.created_at), d.destination, r.kind, d.sent_at IS NULL
            ORDER BY SECONDS(d.created_at, d.sent_at)
        ) AS place,
        count(d.sent_at) OVER (PARTITION BY DAY(d.created_at), d.destination, r.kind) AS number
    FROM deliveries d
    JOIN results r ON r.id = d.result_id
)
SELECT
    day,
    destination,
    kind,
    count(*) AS deliveries,
    count(*) FILTER (WHERE state IN ('sent', 'verified')) AS taken,
    count(*) FILTER (WHERE state = 'verified') AS verified,
    count(*) FILTER (WHERE state IN ('pending', 'sending')) AS waiting,
    count(*) FILTER (WHERE state = 'on_hold') AS on_hold,
    count(*) FILTER (WHERE state = 'failed') AS failed,
    count(*) FILTER (WHERE state IN ('recorded', 'withdrawn')) AS not_sent,
    sum(attempts) AS attempts,
    MEDIAN AS median_seconds
FROM ranked
GROUP BY day, destination, kind
""",
)

_LATEST_VERDICTS = View(
    "latest_verdicts",
    "The latest verdict of a reader on each finding; earlier ones are in the table feedback.",
    {
        "finding_id": "Row number of the finding.",
        "study_id": "Row number of the study.",
        "month": "Month of the verdict.",
        "at": "When it was given.",
        "model": "Name of the model.",
        "model_version": "Version of the model.",
        "label": "What was looked for.",
        "present": "True: the model said that it is there.",
        "probability": "Probability that the model gave. NULL: none.",
        "verdict": "accept, modify or reject.",
        "actor": "Who gave it.",
        "source": "web, api, cli or dicom.",
    },
    """
SELECT
    f.finding_id,
    f.study_id,
    MONTH(f.at) AS month,
    f.at,
    f.model,
    f.model_version,
    f.label,
    f.present,
    f.probability,
    f.verdict,
    f.actor,
    f.source
FROM feedback f
WHERE NOT EXISTS (SELECT 1 FROM feedback later WHERE later.finding_id = f.finding_id AND later.id > f.id)
""",
)

_READER_AGREEMENT = View(
    "reader_agreement",
    "What readers thought of findings, by their latest verdict on each, a month, model and label.",
    {
        "month": "Month of the verdict.",
        "model": "Name of the model.",
        "model_version": "Version of the model.",
        "label": "What was looked for.",
        "present": "True: the model said that it is there; false: that it is not.",
        "verdicts": "Findings with a verdict.",
        "accepted": "Findings that the reader accepted.",
        "modified": "Findings that the reader modified.",
        "rejected": "Findings that the reader rejected.",
        "agreed_share": "Share of those accepted, or present and modified, 0 to 1.",
    },
    """
SELECT
    month,
    model,
    model_version,
    label,
    present,
    count(*) AS verdicts,
    count(*) FILTER (WHERE verdict = 'accept') AS accepted,
    count(*) FILTER (WHERE verdict = 'modify') AS modified,
    count(*) FILTER (WHERE verdict = 'reject') AS rejected,
    avg(CASE WHEN verdict = 'accept' OR (present AND verdict = 'modify') THEN 1.0 ELSE 0.0 END) AS agreed_share
FROM latest_verdicts
GROUP BY month, model, model_version, label, present
""",
)

_MODEL_PERFORMANCE = View(
    "model_performance",
    "What each model said a month and label, and how often readers agreed, by their latest verdicts.",
    {
        "month": "Month in which the image was analysed.",
        "model": "Name of the model.",
        "model_version": "Version of the model.",
        "label": "What was looked for.",
        "shadow": "True: the model was in shadow.",
        "images": "Images.",
        "undecided": "Images of which the model could not tell.",
        "present": "Images in which it is present.",
        "present_share": "Share of those, 0 to 1.",
        "mean_probability": "Mean probability. NULL: none was given.",
        "verdicts": "Images with a verdict of a reader.",
        "true_positives": "Present, and accepted or modified.",
        "false_positives": "Present, and rejected.",
        "true_negatives": "Not present, and accepted.",
        "false_negatives": "Not present, and modified or rejected.",
        "predictive_value": "Share of true positives among positives with a verdict, 0 to 1. NULL: none has one.",
    },
    """
SELECT
    MONTH(j.finished_at) AS month,
    f.model,
    f.model_version,
    f.label,
    f.shadow,
    count(*) AS images,
    count(*) FILTER (WHERE f.probability IS NULL) AS undecided,
    count(*) FILTER (WHERE f.present) AS present,
    avg(CASE WHEN f.present THEN 1.0 ELSE 0.0 END) AS present_share,
    avg(f.probability) AS mean_probability,
    count(v.verdict) AS verdicts,
    count(*) FILTER (WHERE f.present AND v.verdict IN ('accept', 'modify')) AS true_positives,
    count(*) FILTER (WHERE f.present AND v.verdict = 'reject') AS false_positives,
    count(*) FILTER (WHERE NOT f.present AND v.verdict = 'accept') AS true_negatives,
    count(*) FILTER (WHERE NOT f.present AND v.verdict IN ('modify', 'reject')) AS false_negatives,
    avg(CASE WHEN v.verdict = 'reject' THEN 0.0 ELSE 1.0 END)
        FILTER (WHERE f.present AND v.verdict IS NOT NULL) AS predictive_value
FROM findings f
JOIN jobs j ON j.id = f.job_id
LEFT JOIN latest_verdicts v ON v.finding_id = f.id
WHERE NOT f.superseded AND j.finished_at IS NOT NULL
GROUP BY MONTH(j.finished_at), f.model, f.model_version, f.label, f.shadow
""",
)

_CHANGES = View(
    "changes",
    "Who changed what: the audit trail without those who only looked. The configuration is in it.",
    {
        "at": "When.",
        "actor": "Who: a user, an API token, cli:USER or a part of the node.",
        "action": "What was done.",
        "subject": "To what.",
        "study_id": "Row number of the study. NULL: no study.",
        "address": "IP address of the request; empty on the command line.",
        "detail": "Details for a person.",
    },
    """
SELECT at, actor, action, subject, study_id, address, detail
FROM audit
WHERE action NOT IN (LOOKED)
""",
    personal=True,
)

VIEWS = (
    _WORKLIST,
    _STUDIES_PER_DAY,
    _STUDY_TIMES,
    _TURNAROUND_PER_DAY,
    _DELIVERIES_PER_DAY,
    _LATEST_VERDICTS,
    _READER_AGREEMENT,
    _MODEL_PERFORMANCE,
    _CHANGES,
)
"""All views, those that read others after them."""
