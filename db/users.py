"""Users, their log-ins, and tokens for programs. Secrets are stored as digests only.

Passwords are hashed with Argon2id, and :mod:`db.login_attempts` limits how often one may be guessed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from db.audit import AuditEntry, write_entry
from db.audit_events import LOG_IN, LOG_OUT
from db.engine import writing
from db.errors import DatabaseError, RecordNotFoundError
from db.login_attempts import Attempts
from db.user_tables import Role, SessionRow, TokenRow, UserRow

MINIMUM_PASSWORD = 12
MAXIMUM_PASSWORD = 256
PASSWORD, SINGLE_SIGN_ON, OPENID = "password", "single sign-on", "OpenID Connect"
"""How a user logged in; single sign-on is a proxy's."""
_TOKEN_PREFIX = "pleura_"  # noqa: S105 - what every token begins with
# Argon2 takes 64 MiB a hash on purpose; a crowd of log-ins must not take all memory.
_HASHING = threading.BoundedSemaphore(2)


class AccountError(DatabaseError):
    """An account cannot be made or changed as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class User:
    """A person who may log in. ``language`` and ``theme`` of the page are empty where the browser decides."""

    id: int
    name: str
    display_name: str
    role: Role
    disabled: bool
    has_password: bool
    created_at: datetime
    last_login_at: datetime | None
    language: str = ""
    theme: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A log-in that holds: who it is, how they logged in, and the token that their forms must carry."""

    user: User
    csrf: str
    method: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token for programs; the secret itself was shown once and is not kept."""

    id: int
    name: str
    role: Role
    created_by: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


def digest_of(secret: str) -> str:
    """What the database keeps of a random secret: its SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_name(name: str) -> str:
    """The name in lower case.

    Raises:
        AccountError: It is empty, too long or holds other characters.
    """
    lowered = name.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._@-]{0,63}", lowered):
        raise AccountError("a user name has 1 to 64 letters, digits, dots, hyphens, underscores or @")
    return lowered


def check_sender(name: str) -> str:
    """The name of a token that sends by STOW-RS: an AE title, as it is written.

    Raises:
        AccountError: it is none, or holds other characters than safe ones.
    """
    title = name.strip()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", title):
        raise AccountError("a sender is named like an AE title: 1 to 16 letters, digits, dots, hyphens or underscores")
    return title


def check_password(password: str, name: str) -> None:
    """Length is what makes a password strong.

    Raises:
        AccountError: It is too short, too long, one character over and over, or the user's own name.
    """
    if not MINIMUM_PASSWORD <= len(password) <= MAXIMUM_PASSWORD:
        raise AccountError(f"a password has {MINIMUM_PASSWORD} to {MAXIMUM_PASSWORD} characters")
    if len(set(password)) < 4 or password.lower() in (name, name * 2):
        raise AccountError("that password is too easy to guess")


class Accounts:
    """All that is asked and changed of users, sessions and tokens."""

    def __init__(self, engine: Engine, hasher: PasswordHasher | None = None) -> None:
        """Use the database of ``engine``; ``hasher`` is Argon2id with the library's parameters (RFC 9106)."""
        self._engine = engine
        self._hasher = hasher or PasswordHasher()
        self._attempts = Attempts(engine)
        # Verified for a name that does not exist, so that the answer takes as long as for one that does.
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    # --- users

    def add_user(
        self, name: str, password: str | None, role: Role, now: datetime, *, actor: str, display_name: str = ""
    ) -> User:
        """Make a user; without a password only single sign-on lets them in.

        Raises:
            AccountError: The name is taken or either cannot be used.
        """
        name = check_name(name)
        hashed = self._hash(password, name) if password is not None else ""
        values = {"name": name, "display_name": display_name.strip()[:80] or name, "role": role.value}
        try:
            with writing(self._engine).begin() as connection:
                connection.execute(insert(UserRow).values(**values, password_hash=hashed, created_at=now))
                write_entry(connection, AuditEntry(now, actor, "add user", name, detail=role.value))
        except IntegrityError as error:
            raise AccountError(f"there is a user {name} already") from error
        return self._one(UserRow.name == name, name)

    def users(self) -> tuple[User, ...]:
        """Every user by name."""
        with self._engine.connect() as connection:
            return tuple(map(user_of, connection.execute(select(UserRow.__table__).order_by(UserRow.name)).all()))

    def find_user(self, name: str) -> User | None:
        """The user of that name, in any case of letters."""
        with self._engine.connect() as connection:
            row = connection.execute(select(UserRow.__table__).where(UserRow.name == name.strip().lower())).first()
        return None if row is None else user_of(row)

    def change_user(
        self, user_id: int, now: datetime, *, actor: str, role: Role | None = None, disabled: bool | None = None
    ) -> User:
        """Give another role, or lock out and let in again; a locked-out user's log-ins end at once.

        Raises:
            RecordNotFoundError: There is no such user.
            AccountError: No administrator would be left.
        """
        values: dict[str, Any] = {}
        if role is not None:
            values["role"] = role.value
        if disabled is not None:
            values["disabled"] = disabled
        with writing(self._engine).begin() as connection:
            user = _user_or_fail(connection, user_id)
            if values:
                connection.execute(update(UserRow).where(UserRow.id == user_id).values(**values))
                _keep_an_admin(connection)
                if disabled:
                    connection.execute(delete(SessionRow).where(SessionRow.user_id == user_id))
                detail = ", ".join(f"{key}: {value}" for key, value in values.items())
                write_entry(connection, AuditEntry(now, actor, "change user", user.name, detail=detail))
        return self._one(UserRow.id == user_id, user_id)

    def set_password(self, user_id: int, password: str, now: datetime, *, actor: str, keep: str = "") -> None:
        """Change a password and end the user's log-ins, but for the session whose token is ``keep``.

        Raises:
            AccountError: The password cannot be used.
        """
        user = self._one(UserRow.id == user_id, user_id)
        hashed = self._hash(password, user.name)
        with writing(self._engine).begin() as connection:
            connection.execute(update(UserRow).where(UserRow.id == user_id).values(password_hash=hashed))
            ended = delete(SessionRow).where(SessionRow.user_id == user_id)
            connection.execute(ended.where(SessionRow.token_digest != digest_of(keep)) if keep else ended)
            write_entry(connection, AuditEntry(now, actor, "set password", user.name))

    def set_preferences(self, user_id: int, *, language: str | None = None, theme: str | None = None) -> None:
        """Remember how a user wants the page; an empty text leaves it to the browser, None changes nothing."""
        values = {"language": language, "theme": theme}
        wanted = {name: value for name, value in values.items() if value is not None}
        if wanted:
            with writing(self._engine).begin() as connection:
                connection.execute(update(UserRow).where(UserRow.id == user_id).values(**wanted))

    def free_for_sign_on(self, user_id: int, now: datetime, *, actor: str) -> None:
        """Forget a user's password and whom a provider knew them as: their next sign-on by that name makes them theirs.

        Their log-ins end.

        Raises:
            RecordNotFoundError: There is no such user.
        """
        user = self._one(UserRow.id == user_id, user_id)
        freed = update(UserRow).where(UserRow.id == user_id).values(password_hash="", issuer=None, subject=None)
        with writing(self._engine).begin() as connection:
            connection.execute(freed)
            connection.execute(delete(SessionRow).where(SessionRow.user_id == user_id))
            write_entry(connection, AuditEntry(now, actor, "free for sign-on", user.name))

    # --- log-in

    def log_in(self, name: str, password: str, address: str, now: datetime) -> User | None:
        """The user whose name and password these are, or None. Every attempt is in the audit trail.

        Raises:
            db.login_attempts.TooManyAttemptsError: This name or address has failed too often lately; the password is
            not
                looked at.
        """
        with self._engine.connect() as connection:
            query = select(UserRow.__table__).where(UserRow.name == name.strip().lower())
            row = connection.execute(query).first()
        # A mistyped name may be a password: of a name that is not ours only a digest is written down.
        subject = row.name if row is not None else f"unknown:{digest_of(name.strip().lower())[:12]}"
        attempt = self._attempts.begin(subject, address, now)
        usable = row is not None and not row.disabled and bool(row.password_hash)
        right = self._verify(row.password_hash if usable and row is not None else self._nobody, password)
        if row is None or not usable or not right:
            self._attempts.fail(attempt, subject, address, now)
            return None
        self._attempts.succeed(attempt)
        self._renew_hash(row, password)
        return user_of(row)

    def check_own_password(self, user: User, password: str, address: str, now: datetime) -> bool:
        """Whether ``password`` is that user's present one; under the limit of :meth:`log_in`, and raises as it does."""
        with self._engine.connect() as connection:
            hashed = connection.execute(select(UserRow.password_hash).where(UserRow.id == user.id)).scalar_one()
        attempt = self._attempts.begin(user.name, address, now)
        right = bool(hashed) and self._verify(str(hashed), password)
        if right:
            self._attempts.succeed(attempt)
        else:
            self._attempts.fail(attempt, user.name, address, now)
        return right

    def open_session(self, user: User, address: str, now: datetime, lasting: timedelta, method: str = PASSWORD) -> str:
        """Begin a log-in and give its token, which is kept nowhere else."""
        token = secrets.token_urlsafe(32)
        with writing(self._engine).begin() as connection:
            connection.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
            connection.execute(
                insert(SessionRow).values(
                    token_digest=digest_of(token),
                    user_id=user.id,
                    csrf=secrets.token_urlsafe(24),
                    method=method,
                    address=address[:64],
                    created_at=now,
                    expires_at=now + lasting,
                )
            )
            connection.execute(update(UserRow).where(UserRow.id == user.id).values(last_login_at=now))
            write_entry(connection, AuditEntry(now, user.name, LOG_IN, user.name, address=address, detail=method))
        return token

    def session(self, token: str, now: datetime) -> Session | None:
        """The log-in of that token, while it lasts and its user is not locked out."""
        query = (
            select(UserRow.__table__, SessionRow.csrf, SessionRow.method, SessionRow.expires_at)
            .join(SessionRow, SessionRow.user_id == UserRow.id)
            .where(SessionRow.token_digest == digest_of(token), SessionRow.expires_at > now)
            .where(UserRow.disabled.is_(False))
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Session(user_of(row), row.csrf, row.method, row.expires_at)

    def close_session(self, token: str, actor: str, address: str, now: datetime) -> None:
        """End a log-in."""
        with writing(self._engine).begin() as connection:
            connection.execute(delete(SessionRow).where(SessionRow.token_digest == digest_of(token)))
            write_entry(connection, AuditEntry(now, actor, LOG_OUT, actor, address=address))

    # --- tokens

    def add_token(self, name: str, role: Role, now: datetime, *, actor: str) -> tuple[ApiToken, str]:
        """Make a token for a program; the second value is the secret, which can be shown only now.

        Raises:
            AccountError: The name cannot be used.
        """
        name = check_sender(name) if role is Role.SENDER else check_name(name)
        secret = _TOKEN_PREFIX + secrets.token_urlsafe(32)
        values = {"name": name, "role": role.value, "created_by": actor[:64], "created_at": now}
        with writing(self._engine).begin() as connection:
            made = insert(TokenRow).values(**values, token_digest=digest_of(secret)).returning(TokenRow.id)
            token_id = int(connection.execute(made).scalar_one())
            write_entry(connection, AuditEntry(now, actor, "add token", name, detail=role.value))
        return ApiToken(token_id, name, role, actor, now, None, None), secret

    def tokens(self) -> tuple[ApiToken, ...]:
        """Every token, the newest first."""
        query = select(TokenRow.__table__).order_by(TokenRow.id.desc())
        with self._engine.connect() as connection:
            return tuple(map(_token, connection.execute(query).all()))

    def revoke_token(self, token_id: int, now: datetime, *, actor: str) -> None:
        """End a token for good.

        Raises:
            RecordNotFoundError: There is no such token.
        """
        with writing(self._engine).begin() as connection:
            name = connection.execute(select(TokenRow.name).where(TokenRow.id == token_id)).scalar_one_or_none()
            if name is None:
                raise RecordNotFoundError("token", token_id)
            unused = TokenRow.revoked_at.is_(None)
            connection.execute(update(TokenRow).where(TokenRow.id == token_id, unused).values(revoked_at=now))
            write_entry(connection, AuditEntry(now, actor, "revoke token", str(name)))

    def token(self, secret: str, now: datetime) -> ApiToken | None:
        """The token with that secret, unless it was revoked; notes its use, once a minute at most."""
        digest = digest_of(secret)
        query = select(TokenRow.__table__).where(TokenRow.token_digest == digest, TokenRow.revoked_at.is_(None))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        if row.last_used_at is None or now - row.last_used_at > timedelta(minutes=1):
            with writing(self._engine).begin() as connection:
                connection.execute(update(TokenRow).where(TokenRow.id == row.id).values(last_used_at=now))
        return _token(row)

    # --- inside

    def _one(self, condition: Any, reference: object) -> User:
        with self._engine.connect() as connection:
            row = connection.execute(select(UserRow.__table__).where(condition)).first()
        if row is None:
            raise RecordNotFoundError("user", reference)
        return user_of(row)

    def _hash(self, password: str, name: str) -> str:
        check_password(password, name)
        with _HASHING:
            return self._hasher.hash(password)

    def _verify(self, hashed: str, password: str) -> bool:
        with _HASHING:
            try:
                return self._hasher.verify(hashed, password[: MAXIMUM_PASSWORD + 1])
            except VerificationError:
                return False

    def _renew_hash(self, row: Any, password: str) -> None:
        """Hash again where the library has raised its parameters since."""
        if self._hasher.check_needs_rehash(row.password_hash):
            with _HASHING:
                hashed = self._hasher.hash(password)
            with writing(self._engine).begin() as connection:
                connection.execute(update(UserRow).where(UserRow.id == row.id).values(password_hash=hashed))


def _user_or_fail(connection: Connection, user_id: int) -> User:
    row = connection.execute(select(UserRow.__table__).where(UserRow.id == user_id)).first()
    if row is None:
        raise RecordNotFoundError("user", user_id)
    return user_of(row)


def _keep_an_admin(connection: Connection) -> None:
    """Called inside the transaction: raising undoes the change that took the last administrator away."""
    admins = select(func.count()).where(UserRow.role == Role.ADMIN.value, UserRow.disabled.is_(False))
    if connection.execute(admins).scalar_one() == 0:
        raise AccountError("one administrator must stay; make another one first")


def user_of(row: Any) -> User:
    """The user of a row of the table."""
    return User(
        row.id,
        row.name,
        row.display_name,
        Role(row.role),
        row.disabled,
        bool(row.password_hash),
        row.created_at,
        row.last_login_at,
        row.language,
        row.theme,
    )


def _token(row: Any) -> ApiToken:
    return ApiToken(row.id, row.name, Role(row.role), row.created_by, row.created_at, row.last_used_at, row.revoked_at)
