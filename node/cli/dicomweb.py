"""``pleura dicomweb``: the DICOMweb server alone, for a distributed set-up."""

from __future__ import annotations

import os

import click

from node.cli.common import database_opens, fail, settings_of, stop_on_signals


@click.command()
@click.pass_context
def dicomweb(context: click.Context) -> None:
    """Run the DICOMweb server alone: images by STOW-RS, and own results by QIDO-RS and WADO-RS.

    It accepts API tokens (`pleura user token`). docs/dicomweb.md says who may do what.
    """
    from models.manifest import ManifestError
    from models.model_registry import UnknownModel
    from node.dicomweb.app import run_dicomweb
    from node.opening import ServeError
    from workers.audit.activity import application_activity

    settings = settings_of(context)

    def _ready(port: int) -> None:
        click.echo(f"DICOMweb on {settings.dicomweb.host}:{port}", err=True)

    with stop_on_signals() as stop:
        try:
            if database_opens(settings, stop):
                with application_activity(settings, "dicomweb"):
                    run_dicomweb(settings, _ready, stop)
        except (ManifestError, UnknownModel) as error:
            fail(str(error), os.EX_CONFIG)
        except ServeError as error:
            fail(str(error), error.exit_code)
        except OSError as error:
            fail(f"{error}; fix dicomweb.host, dicomweb.port or dicomweb.tls_certificate")
