"""A small OpenID provider, without sockets, that can also lie. Its clients reach it by an httpx transport."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey

from config.openid import OpenID
from node.openid import Provider

ISSUER = "https://login.hospital.example/realms/staff"
SECRET = "s:e/c%r+e t"
PAGE = "http://node"


_numbers = itertools.count(1)


def _somebody() -> dict[str, Any]:
    number = next(_numbers)
    return {"sub": f"s-{number}", "preferred_username": f"grace{number}", "name": "Grace Hopper", "groups": ["rad"]}


@dataclass
class SmallProvider:
    """Authenticates whoever asks as :attr:`user`; what it says can be changed."""

    user: dict[str, Any] = field(default_factory=_somebody)
    id_token: dict[str, Any] = field(default_factory=dict)
    """Claims to set in the ID token; None leaves one out."""
    userinfo: dict[str, Any] | None = None
    discovery: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str] = field(default_factory=dict)
    """What the browser brings back besides, or instead."""
    header: dict[str, Any] = field(default_factory=dict)
    signs_with: ECKey | None = None
    """Another key than the published one."""
    statuses: dict[str, int] = field(default_factory=dict)
    down: bool = False
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rotate()

    def begin_anew(self) -> None:
        """As it was made, with another user."""
        vars(self).update(vars(SmallProvider()))

    @property
    def name(self) -> str:
        """The user's name."""
        return str(self.user["preferred_username"])

    def rotate(self) -> None:
        """Sign with a new key, and publish only that."""
        self.key = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)

    def browse(self, url: str) -> str:
        """What a browser does with the address of an authorization request: gives where it is sent back to."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        back = {"code": code, "state": query["state"], "iss": ISSUER} | self.answer
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.rpartition("/")[2]
        self.asked.append(f"{request.url.scheme}://{request.url.host}")
        if self.down:
            raise httpx2.ConnectError("connection refused", request=request)
        if path in self.statuses:
            return httpx2.Response(self.statuses[path], headers={"location": "https://elsewhere.example/"})
        answers: dict[str, Callable[[httpx2.Request], Any]] = {
            "openid-configuration": self._discovery,
            "keys": lambda _: {"keys": [self.key.as_dict(private=False)]},
            "token": self._token,
            "userinfo": lambda _: self.userinfo,
        }
        answer = answers[path](request)
        return httpx2.Response(400 if "error" in answer else 200, json=answer)

    def _discovery(self, request: httpx2.Request) -> dict[str, Any]:
        made = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
            "end_session_endpoint": f"{ISSUER}/logout",
        }
        if self.userinfo is not None:
            made["userinfo_endpoint"] = f"{ISSUER}/userinfo"
        return made | self.discovery

    def _knows(self, request: httpx2.Request, form: dict[str, str]) -> bool:
        """Whether a client proves itself as RFC 6749 2.3.1 says, by the method that is supported."""
        if "client_secret_post" in self.discovery.get("token_endpoint_auth_methods_supported", ()):
            return (form.get("client_id"), form.get("client_secret")) == ("pleura", SECRET)
        words = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().split(":")
        return [unquote_plus(word) for word in words] == ["pleura", SECRET]

    def _token(self, request: httpx2.Request) -> dict[str, Any]:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        if not self._knows(request, form):
            return {"error": "invalid_client"}
        begun = self.codes.pop(form["code"], None)
        if begun is None or begun["redirect_uri"] != form["redirect_uri"]:
            return {"error": "invalid_grant"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != begun["code_challenge"]:
            return {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": begun["client_id"],
            "iat": now,
            "exp": now + 300,
            "nonce": begun["nonce"],
            **self.user,
            **self.id_token,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "ES256", "kid": self.key.kid, "x5t": "a header that nobody needs"} | self.header
        signed = jwt.encode(header, kept, self.signs_with or self.key, algorithms=["ES256", "HS256", "none"])
        return {"access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": signed}


def rules(**changed: Any) -> OpenID:
    """Settings for the small provider."""
    made: dict[str, Any] = {
        "enabled": True,
        "issuer": ISSUER,
        "client_id": "pleura",
        "client_secret": SECRET,
        "page": PAGE,
        "name": "Hospital account",
        "admins": ["pacs-admins"],
        "radiologists": ["rad"],
        "viewers": ["ward", "students"],
    }
    return OpenID.model_validate(made | changed)


def client_of(small: SmallProvider, **changed: Any) -> Provider:
    """A node's side of it; a minute goes by between any two of its questions, so that it remembers nothing."""
    minutes = itertools.count(0, 60)
    return Provider(rules(**changed), lambda: float(next(minutes)), httpx2.MockTransport(small))
