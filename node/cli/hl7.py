"""``pleura hl7``: the HL7 listener alone, for a distributed set-up."""

from __future__ import annotations

import click

from node.cli.common import database_opens, fail, settings_of, stop_on_signals


@click.command()
@click.pass_context
def hl7(context: click.Context) -> None:
    """Run the HL7 v2 listener alone: orders, final reports and corrected patients by MLLP.

    Orders with priority STAT make their studies urgent, a final report removes a study from the worklist, and results
    of a patient whose data is corrected are put on hold. The supported messages are in docs/hl7.md.
    """
    from node.hl7.listener import run_hl7
    from workers.audit.activity import application_activity

    settings = settings_of(context)

    def _ready(port: int) -> None:
        click.echo(f"HL7 listens on {settings.hl7.host}:{port}", err=True)

    with stop_on_signals() as stop:
        try:
            if database_opens(settings, stop):
                with application_activity(settings, "hl7"):
                    run_hl7(settings, _ready, stop)
        except OSError as error:
            fail(f"{error}; fix hl7.host, hl7.port or hl7.tls_certificate")
