"""``pleura completion``: completion of commands and options by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    bash: pleura completion bash > ~/.local/share/bash-completion/completions/pleura

    zsh: pleura completion zsh > ~/.zfunc/_pleura, with ~/.zfunc in fpath before compinit

    fish: pleura completion fish > ~/.config/fish/completions/pleura.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "pleura", "_PLEURA_COMPLETE").source())
