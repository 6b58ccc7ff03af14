"""Handles the jobs of an analysis worker: each with the model states of its beginning, and STAT images in between."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from sqlalchemy.exc import SQLAlchemyError

from db import jobs, model_states
from db.records import Job
from workers.analysis import analyse_job
from workers.analysis_tools import AnalysisTools
from workers.errors import where_in_code
from workers.heartbeat import Heartbeat
from workers.model_state_resolver import ModelStateResolver

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobHandler:
    """Analyses jobs with ``tools`` and the loaded networks of ``resolver``; ``heartbeat`` renews their claims."""

    tools: AnalysisTools
    resolver: ModelStateResolver
    heartbeat: Heartbeat

    def handle(self, job_id: int) -> None:
        """Analyse a job; between two stages of a routine image a STAT image that waits goes first."""
        self._analyse(job_id, replace(self.tools, let_stat_go_first=self._let_stat_go_first))

    def _analyse(self, job_id: int, tools: AnalysisTools, routine: Job | None = None) -> None:
        found = self.resolver.resolve(tools.database.read(model_states.current_states))
        tools = replace(tools, predictor=found.predictor, modes=found.modes, changes=found.changes)
        analyse_job(job_id, tools, routine)

    def _let_stat_go_first(self, routine: Job) -> None:
        # Whatever goes wrong here is no failed attempt of the routine image, which has nothing to do with it.
        tools = self.tools
        try:
            if not tools.task_queue.stat_waits(tools.queue):
                return
            if (job_id := tools.database.read(jobs.first_stat, tools.queue)) is not None:
                self._analyse_between(job_id, routine)  # its message finds nothing to claim
                tools.database.write(jobs.count_attempts, routine.id, tools.worker, routine.attempts)
        except SQLAlchemyError as error:
            log.warning("no STAT image could go first: %s", type(error).__name__)

    def _analyse_between(self, job_id: int, routine: Job) -> None:
        try:
            self._analyse(job_id, self.tools, routine)
        except Exception as error:
            self.heartbeat.let_lie.add(job_id)
            log.error("a STAT image could not go first: %s\n%s", type(error).__name__, where_in_code(error))
