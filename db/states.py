"""The states of instances, jobs, deliveries and studies, and the moves between them that are allowed."""

from __future__ import annotations

from enum import StrEnum

WAITS_FOR_SERVER = "waits for a model server: "
"""Begins the error of a job that is tried again when the server of one of its networks can be asked."""

JOBS = "jobs"
"""The queue of every job, where no model is said to need a GPU."""
JOBS_GPU = "jobs.gpu"
JOBS_CPU = "jobs.cpu"
"""The two queues in its place, where some do (``models.gpu``)."""


class InstanceState(StrEnum):
    """State of a received instance."""

    RECEIVED = "received"
    ELIGIBLE = "eligible"
    NOT_ELIGIBLE = "not_eligible"


class JobState(StrEnum):
    """Where a job (one pipeline on one instance) stands.

    ``on_hold`` waits for a person. ``withdrawn``: its image does not count, for it repeats an earlier one, or a newer
    one has replaced it.
    """

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    DONE = "done"
    FAILED = "failed"
    ON_HOLD = "on_hold"
    WITHDRAWN = "withdrawn"


class DeliveryState(StrEnum):
    """Where a delivery (one result to one destination) stands.

    ``verified``: the destination itself has confirmed that it holds the object. ``recorded``: kept here on purpose and
    not sent (late result, study already reported). ``on_hold`` waits for a person, ``withdrawn`` will never be sent.
    """

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    VERIFIED = "verified"
    FAILED = "failed"
    ON_HOLD = "on_hold"
    RECORDED = "recorded"
    WITHDRAWN = "withdrawn"


class StudyState(StrEnum):
    """A study is open while images arrive or are analysed, and complete when nothing has happened for a time."""

    OPEN = "open"
    COMPLETE = "complete"


class Priority(StrEnum):
    """Triage priority. *Not analysed* is a state of its own and no priority."""

    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"

    @property
    def rank(self) -> int:
        """0 for routine, and higher for what is more urgent."""
        return [*reversed(Priority)].index(self)


class Analysis(StrEnum):
    """What the analysis of a study has come to, for the worklist."""

    WAITING = "waiting"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not analysed"
    FAILED = "failed"


INSTANCE_TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.RECEIVED: frozenset({InstanceState.ELIGIBLE, InstanceState.NOT_ELIGIBLE}),
    InstanceState.ELIGIBLE: frozenset({InstanceState.NOT_ELIGIBLE}),
    InstanceState.NOT_ELIGIBLE: frozenset({InstanceState.ELIGIBLE}),
}


JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    # To done without running: the instance was taken back by a rejection note.
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.ON_HOLD, JobState.DONE, JobState.WITHDRAWN}),
    JobState.RUNNING: frozenset(
        {JobState.DONE, JobState.RETRYING, JobState.FAILED, JobState.ON_HOLD, JobState.QUEUED, JobState.WITHDRAWN}
    ),
    JobState.RETRYING: frozenset(
        {JobState.RUNNING, JobState.ON_HOLD, JobState.QUEUED, JobState.DONE, JobState.WITHDRAWN}
    ),
    JobState.DONE: frozenset({JobState.QUEUED, JobState.WITHDRAWN}),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.ON_HOLD, JobState.DONE, JobState.WITHDRAWN}),
    JobState.ON_HOLD: frozenset({JobState.QUEUED, JobState.FAILED, JobState.DONE, JobState.WITHDRAWN}),
    JobState.WITHDRAWN: frozenset(),
}


DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset(
        {DeliveryState.SENDING, DeliveryState.ON_HOLD, DeliveryState.RECORDED, DeliveryState.WITHDRAWN}
    ),
    DeliveryState.SENDING: frozenset(
        {
            DeliveryState.SENT,
            DeliveryState.PENDING,
            DeliveryState.FAILED,
            DeliveryState.ON_HOLD,
            DeliveryState.WITHDRAWN,
        }
    ),
    DeliveryState.SENT: frozenset(
        {DeliveryState.VERIFIED, DeliveryState.PENDING, DeliveryState.FAILED, DeliveryState.WITHDRAWN}
    ),
    DeliveryState.VERIFIED: frozenset({DeliveryState.PENDING, DeliveryState.WITHDRAWN}),
    DeliveryState.FAILED: frozenset({DeliveryState.PENDING, DeliveryState.ON_HOLD, DeliveryState.WITHDRAWN}),
    DeliveryState.ON_HOLD: frozenset({DeliveryState.PENDING, DeliveryState.WITHDRAWN}),
    DeliveryState.RECORDED: frozenset({DeliveryState.PENDING, DeliveryState.ON_HOLD, DeliveryState.WITHDRAWN}),
    DeliveryState.WITHDRAWN: frozenset(),
}


STUDY_TRANSITIONS: dict[StudyState, frozenset[StudyState]] = {
    StudyState.OPEN: frozenset({StudyState.COMPLETE}),
    StudyState.COMPLETE: frozenset({StudyState.OPEN}),
}
