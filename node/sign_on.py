"""Interpretation of an OpenID provider's answers (user, role): pure functions, without the libraries that ask it."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from config.openid import OpenID
from db.sign_on import Identity
from db.user_tables import Role

NOT_BEGUN = "this log-in was not begun in this browser, or too long ago; please try again"


class SignOnError(Exception):
    """A log-in has failed; the message is a sentence for the user."""


class RefusedError(SignOnError):
    """The provider has authenticated a person who may not use this node; ``name`` is theirs, as far as it is known."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class ProviderError(SignOnError):
    """The provider does not answer, or not as OpenID Connect says; the message goes on after its name."""


class Begun(BaseModel):
    """What the browser keeps of a log-in that has begun, until the provider sends it back."""

    model_config = ConfigDict(frozen=True, strict=True)

    state: str = Field(min_length=1)
    nonce: str = Field(min_length=1)
    verifier: str = Field(min_length=1)
    target: str
    """Path of this site to open afterwards."""


def code_of(answer: Mapping[str, str], begun: Begun, issuer: str, *, names_itself: bool) -> str:
    """The authorization code of an answer to ``begun``; with ``names_itself`` it must name its issuer (RFC 9207).

    Raises:
        SignOnError: It is no answer to it.
        ProviderError: The provider refuses, or sends no code.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
        raise SignOnError(NOT_BEGUN)
    if answer.get("iss", "" if names_itself else issuer) != issuer:
        raise SignOnError("the answer comes from another provider")
    if "error" in answer:
        raise ProviderError(f"does not log you in ({known_error(answer['error'])})")
    if not answer.get("code"):
        raise ProviderError("sent you back without a code")
    return answer["code"]


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim; where none has that name, its dots lead into objects. None where there is none."""
    if name in claims:
        return claims[name]
    first, dot, rest = name.partition(".")
    inner = claims.get(first) if dot else None
    return claim(inner, rest) if isinstance(inner, Mapping) else None


def role_of(claims: Mapping[str, Any], openid: OpenID) -> Role | None:
    """The highest role that the groups of a user give; None if none does."""
    found = claim(claims, openid.role_claim)
    groups = {found} if isinstance(found, str) else set(map(str, found)) if isinstance(found, list) else set()
    lists = {Role.ADMIN: openid.admins, Role.RADIOLOGIST: openid.radiologists, Role.VIEWER: openid.viewers}
    return next((role for role, members in lists.items() if groups & set(members)), None)


def identity_of(claims: Mapping[str, Any], openid: OpenID) -> Identity:
    """Who the claims say a user is, and their role on this node.

    Raises:
        RefusedError: They lack the name, or give no role.
    """
    name = claim(claims, openid.name_claim)
    if not isinstance(name, str) or not name:
        raise RefusedError(f"{openid.name} sends no claim {openid.name_claim}: set admin.openid.name_claim", "")
    role = role_of(claims, openid)
    if role is None:
        raise RefusedError(_why_no_role(claims, openid), name)
    return Identity(str(claims["iss"]), str(claims["sub"]), name, str(claims.get("name") or name), role)


def _why_no_role(claims: Mapping[str, Any], openid: OpenID) -> str:
    if claim(claims, openid.role_claim) is not None:
        return "you are in no group that may use this node; ask an administrator"
    if openid.role_claim in claims.get("_claim_names", ()):  # OpenID Connect Core 5.6.2
        return (
            f"you are in more groups than {openid.name} sends; an administrator maps roles of this application instead"
        )
    return f"{openid.name} sends no claim {openid.role_claim}: you are in no group, or it has to be told to send them"


def known_error(error: str | None) -> str:
    """An error code of OAuth 2 (RFC 6749 4.1.2.1): a word, whatever somebody sends instead."""
    return error if error and re.fullmatch(r"[a-z_]{1,40}", error) else "no known error"
