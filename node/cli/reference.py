"""The page docs/cli.md, made from the commands themselves by ``make reference``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from node.cli.main import cli

_HEAD = """# Command line

Every command of `pleura` with its arguments and options, as `--help` prints them. This page is made by
`make reference`; a test fails where it is not current.

- `--config FILE` stands before the command: `pleura --config pleura.toml worklist`. Without it the file that
  `PLEURA_CONFIG` names is read, and without that the defaults hold ([configuration](configuration.md)).
- **STUDY** is the number in the worklist (`'#3'`, quoted for the shell), an accession number, or a UID of the study, a
  series or an image. A name that fits two studies is refused.
- **Exit status**: 0 is success, 1 an error or a check that is not ok, 2 a wrong option or setting, 78 a configuration
  with which a part can never start, 69 what another start may get over ([operations](operations.md#starting)).
- What a command changes is in the audit trail, with the user of the operating system.
"""


def page() -> str:
    """The whole page as Markdown."""
    context = click.Context(cli, info_name="pleura")
    return "\n".join([_HEAD, *_sections(cli, context, 2)])


def _sections(group: click.Group, context: click.Context, level: int) -> Iterator[str]:
    """One section a command, those of a group below it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield _section(command, inner, level)
        if isinstance(command, click.Group):
            yield from _sections(command, inner, level + 1)


def _section(command: click.Command, context: click.Context, level: int) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"{'#' * level} {context.command_path}", f"```text\n{usage}\n```", _text(command.help or "")]
    rows = [_row(one) for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if rows:
        parts.append("\n".join(["| option | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(option: click.Option) -> str:
    value = _value(option)
    names = ", ".join(f"`{name}{value}`" for name in (*option.opts, *option.secondary_opts))
    words = [_text(option.help or option.prompt or "").rstrip(".") + "."]
    if isinstance(option.type, click.Choice):
        words.append(f"One of {', '.join(f'`{choice}`' for choice in option.type.choices)}.")
    if isinstance(option.default, str | int | float) and not option.is_flag and option.default != "":
        words.append(f"Default: `{option.default}`.")
    words += ["May be repeated."] if option.multiple else []
    words += ["Required."] if option.required else []
    meaning = " ".join(" ".join(words).split()).replace("|", "\\|")
    return f"| {names} | {meaning} |"


def _value(option: click.Option) -> str:
    """What stands behind the option's name; nothing for a flag."""
    if option.is_flag:
        return ""
    if option.metavar is None and isinstance(option.type, click.Choice):
        return f" {option.opts[0].lstrip('-').replace('-', '_').upper()}"
    return " " + option.make_metavar(click.Context(click.Command(""))).replace("INTEGER RANGE", "INTEGER")


def _text(text: str) -> str:
    """Help as Markdown: paragraphs without the line breaks of the source."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


if __name__ == "__main__":
    print(page(), end="")
