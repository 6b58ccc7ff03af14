"""Errors of the repositories. Each names the record and what is allowed."""

from __future__ import annotations


class DatabaseError(Exception):
    """Parent of the errors that this room raises itself."""


class DatabaseURLError(DatabaseError, ValueError):
    """The URL names a database that a node cannot use."""


class RecordNotFoundError(DatabaseError, LookupError):
    """There is no such record."""

    def __init__(self, entity: str, reference: object) -> None:
        super().__init__(f"there is no {entity} {reference}")
        self.entity = entity
        self.reference = reference


class AmbiguousStudyError(DatabaseError):
    """A name fits more than one study; ``study_ids`` are their rows."""

    def __init__(self, reference: str, study_ids: tuple[int, ...]) -> None:
        super().__init__(f"{len(study_ids)} studies are known as {reference}: {', '.join(f'#{i}' for i in study_ids)}")
        self.study_ids = study_ids


class TransitionError(DatabaseError):
    """A record would go where the tables of :mod:`db.records` do not let it go. Nothing was written."""

    def __init__(self, entity: str, reference: object, from_state: str, to_state: str) -> None:
        super().__init__(f"{entity} {reference} is {from_state} and cannot become {to_state}")
        self.entity = entity
        self.reference = reference
        self.from_state = from_state
        self.to_state = to_state


class ErasureError(DatabaseError):
    """A study or a patient cannot be erased as it is asked; the message says why. Nothing was written."""


class DuplicateResultError(DatabaseError):
    """Another job or revision has left a result with this SOP Instance UID already. Nothing was written."""

    def __init__(self, sop_instance_uid: str) -> None:
        super().__init__(f"a result with SOP Instance UID {sop_instance_uid} is there already, from other work")
        self.sop_instance_uid = sop_instance_uid


class StudyOnHoldError(DatabaseError):
    """The study waits for a person; what was asked for can be done once it is released. Nothing was written."""

    def __init__(self, study_id: int, reason: str) -> None:
        super().__init__(f"study {study_id} is held ({reason}); release it first")
        self.study_id = study_id
        self.reason = reason


class StudyNotOnHoldError(DatabaseError):
    """There is nothing to release. Nothing was written."""

    def __init__(self, study_id: int) -> None:
        super().__init__(f"study {study_id} is not on hold")
        self.study_id = study_id
