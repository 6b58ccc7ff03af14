"""What a worker's child and the sweep are made of: settings in, connected and warm parts out.

Imported in the process that uses it, for it brings networks and encoders along.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from config.settings import Settings
from db.clock_correction import LongestWaits, pull_back
from db.destinations import Associations
from db.engine import connect
from db.worklist import Worklist
from models.predictor import load_predictor
from models.runtime.loading import device_in_use
from workers.analysis import AnalysisTools, analyse_job
from workers.clock import utc_now
from workers.delivery import DeliveryTools, deliver
from workers.delivery_worker import AttendTools, attend, longest_stay
from workers.destinations.destination_kinds import KINDS
from workers.enqueue import Doorbell
from workers.job_outcome import encode_in_order
from workers.model_state_resolver import States, Switchboard, Turn
from workers.open_worklist import worklist_of
from workers.pipeline_digest import activated_pipeline, active_pipeline, digest_of
from workers.repeated_instances import difference
from workers.results.encoder import Equipment
from workers.results.encoders import ENCODERS
from workers.retention import Retention
from workers.scheduler import Sweep, ring_deliveries, ring_jobs
from workers.source_image import SourceImage, read_source
from workers.stale_objects import RejectionNotes
from workers.study_summary import Summariser
from workers.verification import LONGEST_WAIT_SECONDS, proof_tools, prove
from workers.worker_id import Place

log = logging.getLogger(__name__)

# What a released claim leaves has never been rung for, and is found whatever the quiet time.
_RELEASED = timedelta(days=365)


class Judges(Protocol):
    """Loaded networks that answer in turns; see :class:`workers.model_state_resolver.Switchboard`."""

    def turn(self, states: States) -> Turn:
        """What judges the next image while models are in ``states``."""
        ...


Load = Callable[[Settings], tuple[Judges, str]]
"""Gives loaded networks, and the digest of the pipeline that the configuration makes of them."""


def load_active(settings: Settings) -> tuple[Switchboard, str]:
    """Load and warm the models that the configuration names; with them the digest of the pipeline."""
    started = time.monotonic()
    pipeline = active_pipeline(settings, verify=True)
    predictor = load_predictor(pipeline, device=settings.workers.device, threads=settings.workers.threads)
    log.info("%d models loaded and warm in %.1f s", len(tuple(pipeline)), time.monotonic() - started)
    return Switchboard(predictor, activated_pipeline(settings)), digest_of(pipeline, settings)


def analysis_handler(
    settings: Settings, here: Place, *, worklist: Worklist | None = None, load: Load = load_active
) -> Callable[[int], None]:
    """Connect, load the models, take over what the last process at this place left, and handle jobs."""
    worklist = worklist or worklist_of(settings)
    doorbell = Doorbell(settings.broker_url)
    worklist.release_jobs(here.prefix, utc_now())
    judges, pipeline = load(settings)
    ring_jobs(worklist, doorbell, _RELEASED, utc_now())
    tools = AnalysisTools(
        settings=settings,
        worklist=worklist,
        read_source=source_reader(settings),
        difference=partial(
            difference, threads=max(settings.workers.threads, 1), most_pixels=settings.workers.most_pixels
        ),
        predictor=judges.turn({}).predictor,
        encode=partial(encode_in_order, ENCODERS),
        equipment=equipment_of(settings),
        pipeline=pipeline,
        doorbell=doorbell,
        clock=utc_now,
        elapsed=time.monotonic,
        worker=here.name,
        device=device_in_use(),
    )

    def handle(job_id: int) -> None:
        turn = judges.turn(worklist.model_states())
        analyse_job(job_id, replace(tools, predictor=turn.predictor, modes=turn.modes, changes=turn.changes))

    return handle


def delivery_handler(settings: Settings, here: Place, *, worklist: Worklist | None = None) -> Callable[[int], None]:
    """Connect, take over what the last process at this place left, and handle deliveries."""
    engine = connect(settings.database_url)
    worklist, associations = worklist or worklist_of(settings, engine), Associations(engine)
    doorbell = Doorbell(settings.broker_url)
    associations.release(here.prefix)
    worklist.release_deliveries(here.prefix, utc_now())
    ring_deliveries(worklist, doorbell, _RELEASED, utc_now())
    sending = DeliveryTools(settings, worklist, KINDS, utc_now, here.name)
    tools = AttendTools(
        settings=settings,
        associations=associations,
        doorbell=doorbell,
        deliver=partial(deliver, tools=sending),
        prove=partial(prove, tools=proof_tools(settings, worklist)),
        clock=utc_now,
        elapsed=time.monotonic,
        worker=here.name,
    )
    return partial(attend, tools=tools)


def sweep_of(settings: Settings) -> Sweep:
    """The sweep of a node."""
    engine, worklist = connect(settings.database_url), worklist_of(settings)
    pipeline = active_pipeline(settings)
    doorbell, equipment = Doorbell(settings.broker_url), equipment_of(settings)
    return Sweep(
        settings=settings,
        worklist=worklist,
        doorbell=doorbell,
        clock=utc_now,
        summarise=Summariser(settings, worklist, pipeline, digest_of(pipeline, settings), equipment),
        retention=Retention(settings.store.folder, settings.store.keep_days, worklist),
        take_back=RejectionNotes(settings, worklist, equipment, doorbell.ring_deliveries).step,
        pull_back=lambda now: pull_back(engine, now, longest_waits(settings)),
    )


def longest_waits(settings: Settings) -> LongestWaits:
    """The longest times ahead that this node writes, with a minute or two for clocks that differ."""
    margin, workers = timedelta(minutes=2), settings.workers
    proof = max([LONGEST_WAIT_SECONDS, *(each.proof_seconds for each in settings.destinations)])
    return LongestWaits(
        attempt=timedelta(seconds=workers.longest_backoff_seconds) + margin,
        proof=timedelta(seconds=proof) + margin,
        job_lease=timedelta(seconds=workers.job_seconds) + margin,
        delivery_lease=longest_stay(settings) + 5 * margin,
    )


def source_reader(settings: Settings) -> Callable[[Path], SourceImage]:
    """A reader of received files within the limits of the configuration."""
    workers = settings.workers
    return partial(read_source, threads=max(workers.threads, 1), most_pixels=workers.most_pixels)


def equipment_of(settings: Settings) -> Equipment:
    """Who makes our objects."""
    return Equipment(
        manufacturer="Pleura",
        manufacturer_model_name="Pleura",
        software_versions=(version("pleura"),),
        station_name=settings.site.station_name,
        device_serial_number=settings.site.station_name,
        institution_name=settings.site.name,
    )
