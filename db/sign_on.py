"""Users whom an OpenID provider has authenticated: made at their first log-in, with the role that it gives them.

An account belongs to issuer and subject, never to a name: a provider may let its users choose names, and give a name to
somebody else. So a name that this node knows already is not taken over, unless an administrator has freed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from db.audit import AuditEntry, write_entry
from db.user_tables import Role, UserRow
from db.users import OPENID, AccountError, User, check_name, user_of


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a provider has authenticated, and the role that its groups give on this node."""

    issuer: str
    subject: str
    name: str
    display_name: str
    role: Role


def sign_on(connection: Connection, identity: Identity, now: datetime) -> User:
    """The user of an identity, with its role and display name; they are made where there is none yet.

    Raises:
        AccountError: They are locked, their name is another user's, or it is no name of a user; the message says which.
    """
    same = (UserRow.issuer == identity.issuer, UserRow.subject == identity.subject)
    known = _row(connection, *same) or _free(connection, identity)
    row = known or _made(connection, identity, now)
    if row.disabled:
        raise AccountError(f"the user {row.name} is locked on this node; ask an administrator")
    values = {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "role": identity.role.value,
        "display_name": identity.display_name.strip()[:80] or row.name,
    }
    changed = update(UserRow).where(UserRow.id == row.id).values(**values).returning(UserRow.__table__)
    user = user_of(connection.execute(changed).one())
    if known is None or row.role != identity.role:
        action = "add user" if known is None else "change user"
        write_entry(connection, AuditEntry(now, OPENID, action, user.name, detail=f"role: {user.role.value}"))
    return user


def _free(connection: Connection, identity: Identity) -> Row[tuple[object, ...]] | None:
    """The user of that name that an administrator has made for single sign-on, not yet linked to an account.

    Raises:
        AccountError: The name is another user's.
    """
    row = _row(connection, UserRow.name == check_name(identity.name))
    if row is not None and (row.password_hash or row.subject):
        raise AccountError(
            f"this node has another user {row.name}; if that is you, an administrator runs "
            "`pleura user change NAME --sign-on`"
        )
    return row


def _made(connection: Connection, identity: Identity, now: datetime) -> Row[tuple[object, ...]]:
    name = check_name(identity.name)
    values = {"name": name, "display_name": name, "role": identity.role.value, "password_hash": "", "created_at": now}
    return connection.execute(insert(UserRow).values(**values).returning(UserRow.__table__)).one()


def _row(connection: Connection, *conditions: ColumnElement[bool]) -> Row[tuple[object, ...]] | None:
    return connection.execute(select(UserRow.__table__).where(*conditions)).first()
