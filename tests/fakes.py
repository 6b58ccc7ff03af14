"""What stands for parts of a worker where a test needs neither broker nor networks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Self

from db.states import JOBS
from models.contract import ModelInput, Prediction
from workers.analysis_tools import Predictor
from workers.enqueue import TaskQueue


class RecordingTaskQueue(TaskQueue):
    """Remembers in ``dispatched`` what was enqueued: pairs of job id and whether it is STAT, and ids of deliveries.

    ``works``: whether the broker answers; ``there``: ids for which a message waits already. Nothing of the real one is
    used but its signatures, which mypy compares: a method that is missing here would reach for a connection, and fail.
    """

    def __init__(self, *, works: bool = True, there: frozenset[int] = frozenset()) -> None:
        self.works, self.there = works, there
        self.dispatched: list[tuple[int, bool] | int] = []
        self.asked = 0

    @property
    def jobs(self) -> list[tuple[int, bool]]:
        return [each for each in self.dispatched if isinstance(each, tuple)]

    @property
    def deliveries(self) -> list[int]:
        return [each for each in self.dispatched if isinstance(each, int)]

    def enqueue_jobs(self, jobs: Iterable[tuple[int, bool]], queue: str = JOBS) -> bool:
        self.dispatched.extend(jobs)
        return self.works

    def stat_waits(self, queue: str = JOBS) -> bool:
        self.asked += 1
        return False

    def enqueue_deliveries(self, delivery_ids: Iterable[int]) -> bool:
        self.dispatched.extend(delivery_ids)
        return self.works

    def waiting_jobs(self, queue: str = JOBS) -> frozenset[int] | None:
        return self.there if self.works else None

    def waiting_deliveries(self) -> frozenset[int] | None:
        return self.there if self.works else None


class OneByOne(Predictor):
    """A predictor that answers for each image alone, whichever of its models are asked."""

    def predict_all(self, images: Sequence[ModelInput]) -> tuple[Prediction, ...]:
        return tuple(map(self.predict, images))

    def only(self, names: Collection[str]) -> Self:
        return self

    def side_by_side(self) -> Self:
        return self
