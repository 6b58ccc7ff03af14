"""``pleura user``: the users and API tokens of the admin page."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click
from rich.table import Table

from db.engine import connect, migrate
from db.user_tables import OF_USERS, Role
from db.users import AccountError, Accounts, User
from node.cli.common import console, fail, json_option, print_json, settings_of
from node.cli.worklist import actor
from workers.clock import for_people


def _accounts(context: click.Context) -> Accounts:
    """The accounts of this node; the database is created if there is none, so that the first admin can be added."""
    settings = settings_of(context)
    settings.store.folder.mkdir(parents=True, exist_ok=True)
    engine = connect(settings.database_url)
    migrate(engine)
    return Accounts(engine)


def _user(accounts: Accounts, name: str) -> User:
    user = accounts.find_user(name)
    if user is None:
        fail(f"there is no user {name}; `pleura user list` lists them")
    return user


@click.group()
def user() -> None:
    """Add and change users and API tokens of the admin page."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in OF_USERS]), required=True, help="Role of the user.")
@click.option("--display-name", default="", help="Name shown on the page.")
@click.option("--no-password", is_flag=True, help="Allow single sign-on only.")
@click.pass_context
def add(context: click.Context, name: str, role: str, display_name: str, no_password: bool) -> None:
    """Add the user NAME. The password is prompted for, or read from standard input if that is not a terminal."""
    accounts = _accounts(context)
    password = None if no_password else _ask_password()
    try:
        accounts.add_user(name, password, Role(role), datetime.now(UTC), actor=actor(), display_name=display_name)
    except AccountError as error:
        fail(str(error))
    console.print(f"{name} may log in as {role}")


def _ask_password() -> str:
    if sys.stdin is None:
        fail("standard input is closed: no password can be read")
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@user.command("list")
@json_option
@click.pass_context
def list_users(context: click.Context, as_json: bool) -> None:
    """Print all users."""
    found = _accounts(context).users()
    if as_json:
        print_json(found)
        return
    table = Table("name", "role", "display name", "state", box=None, pad_edge=False)
    for item in found:
        table.add_row(item.name, item.role, item.display_name, "locked" if item.disabled else "")
    console.print(table)


@user.command("password")
@click.argument("name")
@click.pass_context
def password(context: click.Context, name: str) -> None:
    """Set a new password for NAME; their sessions are closed."""
    accounts = _accounts(context)
    found = _user(accounts, name)
    try:
        accounts.set_password(found.id, _ask_password(), datetime.now(UTC), actor=actor())
    except AccountError as error:
        fail(str(error))
    console.print(f"{found.name} has a new password")


@user.command("change")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in OF_USERS]), help="New role.")
@click.option("--lock/--unlock", default=None, help="Lock or unlock the user.")
@click.option(
    "--sign-on", is_flag=True, help="Forget their password: who next signs on by that name becomes this user."
)
@click.pass_context
def change(context: click.Context, name: str, role: str | None, lock: bool | None, sign_on: bool) -> None:
    """Change the role of the user NAME, lock or unlock them, or leave their log-in to single sign-on."""
    accounts = _accounts(context)
    found = _user(accounts, name)
    try:
        accounts.change_user(
            found.id, datetime.now(UTC), actor=actor(), role=Role(role) if role else None, disabled=lock
        )
        if sign_on:
            accounts.free_for_sign_on(found.id, datetime.now(UTC), actor=actor())
    except AccountError as error:
        fail(str(error))
    console.print(f"{found.name} was changed")


@user.command("token")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="Role of the token; sender: STOW-RS alone.",
)
@click.pass_context
def token(context: click.Context, name: str, role: str) -> None:
    """Add an API token NAME. Its secret is printed once and cannot be read again.

    The name of a sender is an AE title, and stands where the calling AE title of a C-STORE does.
    """
    try:
        _, secret = _accounts(context).add_token(name, Role(role), datetime.now(UTC), actor=actor())
    except AccountError as error:
        fail(str(error))
    click.echo(secret)


@user.command("tokens")
@json_option
@click.pass_context
def tokens(context: click.Context, as_json: bool) -> None:
    """Print all API tokens, without their secrets."""
    found = _accounts(context).tokens()
    if as_json:
        print_json(found)
        return
    zone = settings_of(context).site.zone
    table = Table("#", "name", "role", "created by", "last used", "state", box=None, pad_edge=False)
    for item in found:
        used = for_people(item.last_used_at, zone) if item.last_used_at else "never"
        state = "revoked" if item.revoked_at else ""
        table.add_row(str(item.id), item.name, item.role, item.created_by, used, state)
    console.print(table)


@user.command("revoke")
@click.argument("number", type=int)
@click.pass_context
def revoke(context: click.Context, number: int) -> None:
    """Revoke the API token with this NUMBER."""
    _accounts(context).revoke_token(number, datetime.now(UTC), actor=actor())
    console.print(f"token {number} is revoked")
