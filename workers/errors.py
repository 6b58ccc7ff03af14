"""The two kinds of errors of a job: those that another attempt may fix, and those that it cannot."""

from __future__ import annotations

from models.contract import NotAnalysed


class RetryableError(Exception):
    """Another attempt may succeed. The message is shown to the admin and holds no patient data."""


class RejectedError(Exception):
    """No attempt can succeed with these bytes: the image is *not analysed*, and ``not_analysed`` says why."""

    def __init__(self, not_analysed: NotAnalysed) -> None:
        super().__init__(not_analysed.sentence)
        self.not_analysed = not_analysed
