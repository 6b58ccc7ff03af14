"""``pleura config``: the settings of this node."""

from __future__ import annotations

import click

from config import reference
from node.cli.common import print_json, settings_of


@click.command()
@click.option("--template", is_flag=True, help="Print every key with its default and meaning, as a TOML file to edit.")
@click.option("--table", is_flag=True, help="Print the table of docs/configuration.md.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
@click.pass_context
def config(context: click.Context, template: bool, table: bool, as_json: bool) -> None:
    """Print the effective settings as TOML, secrets masked."""
    if template:
        click.echo(reference.commented_toml(), nl=False)
    elif table:
        click.echo(reference.markdown_table(), nl=False)
    elif as_json:
        print_json(reference.effective(settings_of(context)), notice=False)
    else:
        click.echo(reference.effective_toml(settings_of(context)), nl=False)
