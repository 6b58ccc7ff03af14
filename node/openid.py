"""Log-in by OpenID Connect: authorization code flow with PKCE, state and nonce, at the one provider of the settings.

Authlib speaks OAuth 2 and checks signatures and claims; here is what a node demands of them, and what it makes of them.
Only the provider is called, and the addresses that its own discovery document names; redirects are not followed. Its
keys are read at each log-in, so that it may change them at any time.

The libraries are those of the extra ``openid``: this module is imported only where ``admin.openid`` is enabled.
"""

from __future__ import annotations

import base64
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Annotated, Any
from urllib.parse import quote_plus

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.auth import ClientAuth
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.openid import SECURE_URL, OpenID
from db.queries.statistics import Remembered
from db.sign_on import Identity
from node.sign_on import Begun, ProviderError, claim, code_of, identity_of, known_error

_ALGORITHMS = tuple(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512))
"""Signatures that are accepted (RFC 7518 3.1): made with a key that the provider alone has."""
_LEEWAY_SECONDS = 60
_Endpoint = Annotated[str, Field(pattern=SECURE_URL)]


class Discovery(BaseModel):
    """Metadata of the provider (OpenID Connect Discovery 1.0, 3)."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    authorization_endpoint: _Endpoint
    token_endpoint: _Endpoint
    jwks_uri: _Endpoint
    userinfo_endpoint: _Endpoint | None = None
    end_session_endpoint: _Endpoint | None = None
    code_challenge_methods_supported: tuple[str, ...] = ("S256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class Provider:
    """The provider of the settings."""

    def __init__(
        self, openid: OpenID, elapsed: Callable[[], float], transport: httpx2.BaseTransport | None = None
    ) -> None:
        """No request is sent yet. ``elapsed``: a monotonic clock; ``transport``: that of the tests."""
        self.openid = openid
        self._transport = transport
        self._discovery = Remembered(lambda: self.discover()[0], elapsed)

    def begin(self, target: str) -> tuple[str, Begun]:
        """The provider's address to send the browser to, and what the browser has to bring back.

        Raises:
            ProviderError: It cannot be asked for its addresses.
        """
        discovery = self._discovery.get()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        begun = Begun(state=state, nonce=nonce, verifier=verifier, target=target)
        with self._client(discovery) as client:
            url, _ = client.create_authorization_url(
                discovery.authorization_endpoint,
                state=begun.state,
                nonce=begun.nonce,
                code_verifier=begun.verifier,
            )
        return str(url), begun

    def finish(self, answer: Mapping[str, str], begun: Begun) -> Identity:
        """Whom the provider has authenticated. ``answer``: the query with which it has sent the browser back.

        Raises:
            SignOnError: It is no answer to ``begun``.
            RefusedError: The user has no name or no role on this node.
            ProviderError: The provider does not answer, or its answer is not valid.
        """
        discovery = self._discovery.get()
        code = code_of(
            answer, begun, discovery.issuer, names_itself=discovery.authorization_response_iss_parameter_supported
        )
        with self._client(discovery) as client:
            token = client.fetch_token(discovery.token_endpoint, code=code, code_verifier=begun.verifier)
            claims = self._checked(token, _keys(client, discovery), begun.nonce)
            if discovery.userinfo_endpoint and not self._complete(claims):
                more = _json(client.request("GET", discovery.userinfo_endpoint))
                if more.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2
                    raise ProviderError("answers about somebody else")
                claims = {**more, **claims}
        return identity_of(claims, self.openid)

    def log_out_url(self) -> str | None:
        """Where a browser logs out at the provider (OpenID Connect RP-Initiated Logout 1.0); None where nowhere.

        Raises:
            ProviderError: It cannot be asked.
        """
        if not self.openid.log_out_there:
            return None
        address = self._discovery.get().end_session_endpoint
        back = {"client_id": self.openid.client_id, "post_logout_redirect_uri": self.openid.page.rstrip("/") + "/login"}
        return None if address is None else str(httpx2.URL(address).copy_merge_params(back))

    def discover(self) -> tuple[Discovery, datetime | None]:
        """The provider's discovery document, read anew, and its clock where it tells the time.

        Raises:
            ProviderError: There is none, or it does not fit the settings or what a node needs.
        """
        with self._client() as client:
            address = self.openid.issuer.rstrip("/") + "/.well-known/openid-configuration"
            answer = client.request("GET", address, withhold_token=True)
            document, date = _json(answer), answer.headers.get("date")
        try:
            discovery = Discovery.model_validate(document)
        except ValidationError as error:
            wrong = ", ".join(sorted({str(each["loc"][0]) for each in error.errors()}))
            raise ProviderError(f"has a discovery document without usable {wrong}") from error
        if discovery.issuer != self.openid.issuer:
            raise ProviderError(f"calls itself {discovery.issuer}: set admin.openid.issuer to exactly that")
        if "S256" not in discovery.code_challenge_methods_supported:
            raise ProviderError("does not support PKCE with S256 (RFC 7636)")
        return discovery, parsedate_to_datetime(date) if date else None

    def check_keys(self) -> None:
        """Look whether the provider publishes keys for signatures.

        Raises:
            ProviderError: It does not.
        """
        discovery = self._discovery.get()
        with self._client(discovery) as client:
            _keys(client, discovery)

    def _checked(self, token: Mapping[str, Any], keys: KeySet, nonce: str) -> dict[str, Any]:
        """The claims of the ID token, all checked (OpenID Connect Core 3.1.3.7)."""
        one = {"iss": self.openid.issuer, "aud": self.openid.client_id, "nonce": nonce}
        demanded = {name: {"essential": True, "value": value} for name, value in one.items()}
        given = {"client_id": self.openid.client_id, "nonce": nonce, "access_token": token.get("access_token")}
        registry = JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
        try:
            decoded = jwt.decode(str(token.get("id_token", "")), keys, registry=registry)
            claims = CodeIDToken(decoded.claims, decoded.header, {**demanded, "sub": {"essential": True}}, given)
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError) as error:
            what = str(error) if isinstance(error, JoseError) else type(error).__name__
            raise ProviderError(f"sent an ID token that is not valid ({what})") from error
        return dict(claims)

    def _complete(self, claims: Mapping[str, Any]) -> bool:
        return all(claim(claims, name) is not None for name in (self.openid.name_claim, self.openid.role_claim))

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        """Who may vouch for the provider: read once, since it takes a while."""
        return ssl.create_default_context(cafile=self.openid.ca_file)

    @contextmanager
    def _client(self, discovery: Discovery | None = None) -> Iterator[OAuth2Client]:
        openid = self.openid
        secret = openid.client_secret.get_secret_value() if openid.client_secret else None
        try:
            with OAuth2Client(
                openid.client_id,
                secret,
                token_endpoint_auth_method=_method(discovery) if secret and discovery else "none",
                scope=" ".join(openid.scopes),
                redirect_uri=openid.redirect_uri,
                code_challenge_method="S256",
                verify=self._trusted,
                timeout=openid.timeout_seconds,
                follow_redirects=False,
                transport=self._transport,
            ) as client:
                client.register_client_auth_method(("client_secret_basic", _basic))
                yield client
        except AuthlibBaseError as error:
            raise ProviderError(f"refuses this node ({known_error(error.error)})") from error
        except httpx2.HTTPStatusError as error:
            raise ProviderError(f"answers with status {error.response.status_code}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ProviderError(f"does not answer ({error or type(error).__name__})") from error
        except ValueError as error:
            raise ProviderError("answers something that is no JSON object") from error


def _method(discovery: Discovery) -> str:
    """How the client secret is sent (OpenID Connect Core 9)."""
    methods = discovery.token_endpoint_auth_methods_supported
    return "client_secret_post" if "client_secret_basic" not in methods else "client_secret_basic"


def _basic(client: ClientAuth, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
    """Client ID and secret as RFC 6749 2.3.1 has them: encoded for a form first, which Authlib leaves out."""
    del method
    words = ":".join(quote_plus(word) for word in (client.client_id, client.client_secret))
    headers["Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
    return uri, headers, body


def _keys(client: OAuth2Client, discovery: Discovery) -> KeySet:
    """The provider's keys for signatures; those for encryption and of other kinds are left out (RFC 7517 4.2)."""
    found = _json(client.request("GET", discovery.jwks_uri, withhold_token=True)).get("keys")
    keys = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    usable = [key for key in keys if key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC")]
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError) as error:
        raise ProviderError("publishes no usable keys for signatures") from error


def _json(answer: httpx2.Response) -> dict[str, Any]:
    answer.raise_for_status()
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderError("answers something that is no JSON object")
    return found
