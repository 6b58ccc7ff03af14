"""``pleura probe``: the health check of a container, about the part or the parts that run in it."""

from __future__ import annotations

from collections.abc import Callable

import click

from config.settings import Settings
from node.cli.common import fail, settings_of


def _admin(settings: Settings) -> bool:
    from node.monitoring.page_port import page_answers

    return page_answers(settings.admin)


def _holds(part: str) -> Callable[[Settings], bool]:
    def held(settings: Settings) -> bool:
        from workers.worker_id import host_name, running_parts

        return any((one.part, one.host) == (part, host_name()) for one in running_parts(settings.store.folder))

    return held


def _serve(settings: Settings) -> bool:
    from node.startup import listener_answers
    from workers.analysis_queues import queues_here

    chosen = [part for part in ("admin", "hl7", "dicomweb") if getattr(settings, part).enabled]
    parts = (*queues_here(settings.models), *_WITHOUT_CHOICE, *chosen)
    return listener_answers(settings) and all(_PARTS[part](settings) for part in parts)


_WITHOUT_CHOICE = ("deliveries", "scheduler")
_PARTS: dict[str, Callable[[Settings], bool]] = {
    "admin": _admin,
    # No connection to the HL7 listener: where hl7.addresses does not name this machine, each would be an incident.
    **{part: _holds(part) for part in ("hl7", "dicomweb", "jobs", "jobs.cpu", "jobs.gpu", *_WITHOUT_CHOICE)},
    "serve": _serve,
}


@click.command()
@click.argument("part", type=click.Choice(tuple(_PARTS)))
@click.pass_context
def probe(context: click.Context, part: str) -> None:
    """Say by the exit status whether PART runs on this machine: 0, or 1 with a sentence. For health checks.

    admin answers by HTTP, or by HTTPS if it has a certificate; hl7, dicomweb, scheduler, and the workers of a queue
    (jobs, jobs.cpu, jobs.gpu, deliveries) have started. It asks no other part. For the listener: `pleura echo`. serve:
    all of them that the configuration starts, and the listener answers.
    """
    if not _PARTS[part](settings_of(context)):
        fail(f"{part} does not run here")
