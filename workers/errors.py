"""The two kinds of errors of a job: those that another attempt may mend, and those that it cannot."""

from __future__ import annotations

from models.contract import Unfit


class RetryableError(Exception):
    """Another attempt may succeed. The message is shown to the admin and holds no patient data."""


class RejectedError(Exception):
    """No attempt can succeed with these bytes: the image is *not analysed*, and ``unfit`` says why."""

    def __init__(self, unfit: Unfit) -> None:
        super().__init__(unfit.sentence)
        self.unfit = unfit
