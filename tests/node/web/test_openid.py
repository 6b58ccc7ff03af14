"""Log-in by OpenID Connect at a small provider that can lie; ``tests/node/openid`` asks a real one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey, OctKey
from starlette.testclient import TestClient

from db.audit_events import LOG_IN_FAILED
from db.user_tables import Role
from tests.node.openid.small_provider import ISSUER, SECRET, SmallProvider, client_of
from tests.node.web.conftest import Site, csrf_of, log_in, make_site


@pytest.fixture(scope="module")
def provider() -> SmallProvider:
    return SmallProvider()


@pytest.fixture(scope="module")
def openid_site(filled: Path, tmp_path_factory: pytest.TempPathFactory, provider: SmallProvider) -> Site:
    """One site for all of these tests: each has a user of its own."""
    return make_site(filled, tmp_path_factory.mktemp("openid"), client_of(provider))


@pytest.fixture
def small(provider: SmallProvider) -> SmallProvider:
    """The provider of the site: it tells the truth again, and somebody new stands before it."""
    provider.begin_anew()
    return provider


def sign_on(client: TestClient, small: SmallProvider, target: str = "/") -> httpx2.Response:
    """What a browser gets that logs in with the provider."""
    begun = client.get("/login/openid", params={"next": target})
    assert begun.status_code == 303, begun.text
    return client.get(small.browse(begun.headers["location"]))


def entered(site: Site, small: SmallProvider) -> TestClient:
    client = site.user()
    assert sign_on(client, small).status_code == 303
    client.headers["x-csrf-token"] = csrf_of(client)
    return client


def problem_of(answer: httpx2.Response) -> str:
    return answer.text.split('role="alert">')[1].split("</p>")[0].replace("&#39;", "'")


def test_the_first_log_in_makes_the_user_with_the_role_of_their_group(openid_site: Site, small: SmallProvider) -> None:
    client = openid_site.user()
    assert "Log in with Hospital account" in client.get("/login").text
    answer = sign_on(client, small, "/studies/3?image=4")
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies/3?image=4")
    assert client.get("/system").status_code == 200
    assert client.get("/users").status_code == 403
    user = openid_site.services.accounts.find_user(small.name)
    assert user is not None
    assert (user.display_name, user.role, user.has_password) == ("Grace Hopper", Role.RADIOLOGIST, False)
    trail = [(entry.actor, entry.action, entry.subject, entry.detail) for entry in openid_site.services.audit.entries()]
    assert ("OpenID Connect", "add user", small.name, "role: radiologist") in trail
    assert (small.name, "log in", small.name, "OpenID Connect") in trail
    assert set(small.asked) == {"https://login.hospital.example"}


def test_what_is_asked_of_the_provider_has_pkce_state_nonce_and_no_secret(
    openid_site: Site, small: SmallProvider
) -> None:
    asked = openid_site.user().get("/login/openid").headers["location"]
    query = parse_qs(urlsplit(asked).query)
    assert asked.startswith(f"{ISSUER}/authorize?")
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == ["http://node/login/openid/callback"]
    assert query["scope"] == ["openid profile"]
    again = parse_qs(urlsplit(openid_site.user().get("/login/openid").headers["location"]).query)
    for secret in ("state", "nonce", "code_challenge"):
        assert len(query[secret][0]) == 43, "256 bits"
        assert query[secret] != again[secret]


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["students", "pacs-admins", "rad"], Role.ADMIN),
        (["rad", "ward"], Role.RADIOLOGIST),
        ("ward", Role.VIEWER),
    ],
)
def test_the_highest_role_of_the_groups_counts(
    openid_site: Site, small: SmallProvider, groups: list[str] | str, role: Role
) -> None:
    small.user["groups"] = groups
    entered(openid_site, small)
    user = openid_site.services.accounts.find_user(small.name)
    assert user is not None
    assert user.role is role


def test_a_role_follows_the_groups_at_each_log_in_even_of_the_last_admin(filled: Path, tmp_path: Path) -> None:
    small = SmallProvider()
    site = make_site(filled, tmp_path / "store", client_of(small, role_claim="resource_access.pleura.roles"))
    for roles, status in ((["pacs-admins"], 200), (["ward"], 403)):
        small.user["resource_access"] = {"pleura": {"roles": roles}}
        assert entered(site, small).get("/users").status_code == status
    assert any(entry.detail == "role: viewer" for entry in site.services.audit.entries())


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ({"groups": ["cleaning"]}, "You are in no group that may use this node; ask an administrator."),
        ({"groups": {"rad": True}}, "You are in no group that may use this node"),
        ({"groups": None}, "Hospital account sends no claim groups"),
        ({"groups": None, "_claim_names": {"groups": "src1"}}, "You are in more groups than Hospital account sends"),
        ({"preferred_username": None}, "Hospital account sends no claim preferred_username"),
        ({"preferred_username": "HOSPITAL\\grace"}, "A user name has 1 to 64 letters"),
    ],
)
def test_whoever_has_no_role_or_no_name_is_refused_with_a_sentence_and_in_the_audit_trail(
    openid_site: Site, small: SmallProvider, user: dict[str, Any], sentence: str
) -> None:
    small.user |= user
    client = openid_site.user()
    answer = sign_on(client, small)
    assert answer.status_code == 403
    assert problem_of(answer).startswith(sentence)
    assert client.get("/").status_code == 303
    assert openid_site.services.accounts.find_user(small.name) is None
    assert openid_site.services.audit.entries(limit=1)[0].action == LOG_IN_FAILED


def test_a_name_that_this_node_knows_is_not_taken_over_until_an_admin_says_so(
    openid_site: Site, small: SmallProvider
) -> None:
    small.user["preferred_username"] = "Vera"
    refused = sign_on(openid_site.user(), small)
    assert refused.status_code == 403
    assert problem_of(refused).startswith("This node has another user vera; if that is you, an administrator runs")
    accounts, now = openid_site.services.accounts, openid_site.clock.now
    assert log_in(openid_site.user(), "vera").status_code == 303
    vera = accounts.find_user("vera")
    assert vera is not None
    accounts.free_for_sign_on(vera.id, now, actor="test")
    assert sign_on(openid_site.user(), small).status_code == 303
    assert log_in(openid_site.user(), "vera").status_code == 401
    small.user["sub"] = "another vera"
    assert sign_on(openid_site.user(), small).status_code == 403


def test_who_somebody_is_does_not_hang_on_their_name(openid_site: Site, small: SmallProvider) -> None:
    entered(openid_site, small)
    first = small.name
    small.user |= {"preferred_username": "grace.murray", "name": "Grace Murray"}
    entered(openid_site, small)
    user = openid_site.services.accounts.find_user(first)
    assert user is not None
    assert user.display_name == "Grace Murray"
    assert openid_site.services.accounts.find_user("grace.murray") is None


def test_a_locked_user_is_refused_and_their_session_ends(openid_site: Site, small: SmallProvider) -> None:
    client = entered(openid_site, small)
    user = openid_site.services.accounts.find_user(small.name)
    assert user is not None
    openid_site.services.accounts.change_user(user.id, openid_site.clock.now, actor="ada", disabled=True)
    assert client.get("/").status_code == 303
    answer = sign_on(openid_site.user(), small)
    assert answer.status_code == 403
    assert "is locked on this node" in problem_of(answer)


def test_a_session_ends_after_the_same_time_as_others(openid_site: Site, small: SmallProvider) -> None:
    client = entered(openid_site, small)
    openid_site.clock.forward(hours=12, seconds=1)
    assert client.get("/").status_code == 303


def _lies() -> dict[str, Callable[[SmallProvider], None]]:
    def token(**claims: Any) -> Callable[[SmallProvider], None]:
        return lambda small: small.id_token.update(claims)

    def header(key: Any = None, **names: Any) -> Callable[[SmallProvider], None]:
        def lie(small: SmallProvider) -> None:
            small.header = names
            small.signs_with = key and key(small)

        return lie

    now = int(time.time())
    return {
        "invalid claim: 'iss'": token(iss="https://other.example"),
        "invalid claim: 'aud'": token(aud="another-client"),
        "missing claim: 'aud'": token(aud=None),
        "wrong audience, right azp": token(aud=["another-client"], azp="pleura"),
        "two audiences, azp of another": token(aud=["pleura", "other"], azp="other"),
        "invalid claim: 'nonce'": token(nonce="of another log-in"),
        "missing claim: 'nonce'": token(nonce=None),
        "expired": token(exp=now - 120, iat=now - 600),
        "not valid yet": token(nbf=now + 600),
        "no end": token(exp=None),
        "no subject": token(sub=None),
        "at_hash of another access token": token(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
        "another key": header(lambda _: ECKey.generate_key("P-256")),
        "no signature": header(lambda _: OctKey.generate_key(), alg="none"),
        "the client secret instead of a key": header(lambda _: OctKey.import_key(SECRET * 3), alg="HS256"),
    }


@pytest.mark.parametrize("lie", _lies())
def test_an_id_token_that_lies_logs_nobody_in(openid_site: Site, small: SmallProvider, lie: str) -> None:
    _lies()[lie](small)
    users = openid_site.services.accounts.users()
    client = openid_site.user()
    answer = sign_on(client, small)
    assert answer.status_code == 502
    assert problem_of(answer).startswith("Hospital account sent an ID token that is not valid (")
    assert client.get("/").status_code == 303
    assert openid_site.services.accounts.users() == users


def test_a_provider_may_change_its_keys_between_two_log_ins(openid_site: Site, small: SmallProvider) -> None:
    for _ in range(3):
        entered(openid_site, small)
        small.rotate()


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        ({"state": "guessed"}, 403, "This log-in was not begun in this browser"),
        ({"iss": "https://other.example"}, 403, "The answer comes from another provider."),
        ({"error": "access_denied", "code": ""}, 502, "Hospital account does not log you in (access_denied)."),
        ({"error": "<b>Call 555-0100</b>"}, 502, "Hospital account does not log you in (no known error)."),
        ({"code": ""}, 502, "Hospital account sent you back without a code."),
        ({"code": "guessed"}, 502, "Hospital account refuses this node (invalid_grant)."),
    ],
)
def test_an_answer_that_was_not_asked_for_logs_nobody_in(
    openid_site: Site, small: SmallProvider, answer: dict[str, str], status: int, sentence: str
) -> None:
    small.answer = answer
    client = openid_site.user()
    found = sign_on(client, small)
    assert found.status_code == status
    assert problem_of(found).startswith(sentence)
    assert client.get("/").status_code == 303


def test_an_answer_counts_once_and_only_in_the_browser_that_asked(openid_site: Site, small: SmallProvider) -> None:
    asked, other = openid_site.user(), openid_site.user()
    back = small.browse(asked.get("/login/openid").headers["location"])
    entries = len(openid_site.services.audit.entries())
    for stranger in (other.get(back), other.get("/login/openid/callback?code=x&state=")):
        assert stranger.status_code == 403
    other.cookies.set("pleura_openid", "bm9uc2Vuc2U=")
    assert other.get(back).status_code == 403
    assert len(openid_site.services.audit.entries()) == entries, "strangers must not fill the audit trail"
    assert asked.get(back).status_code == 303
    assert asked.get(back).status_code == 403


def test_the_cookie_of_a_begun_log_in_is_kept_from_scripts_and_other_paths(
    openid_site: Site, small: SmallProvider
) -> None:
    cookie = openid_site.user().get("/login/openid").headers["set-cookie"]
    assert {"HttpOnly", "Path=/login/openid", "SameSite=lax", "Max-Age=600"} <= set(cookie.split("; "))
    assert "://" not in openid_site.user().get("/login/openid?next=//evil.example").headers["set-cookie"]


def test_without_the_provider_passwords_work_and_a_sentence_says_so(openid_site: Site, small: SmallProvider) -> None:
    small.down = True
    client = openid_site.user()
    answer = client.get("/login/openid")
    assert answer.status_code == 502
    assert problem_of(answer) == (
        "Hospital account does not answer (connection refused). If you have a password on this node, log in with it."
    )
    german = client.get("/login/openid", headers={"accept-language": "de"})
    assert problem_of(german) == (
        "Hospital account antwortet nicht (connection refused). Wenn Sie auf diesem Knoten ein Passwort haben, melden "
        "Sie sich damit an."
    )
    assert log_in(client, "rosa").status_code == 303


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("openid-configuration", 404, "Hospital account answers with status 404."),
        ("openid-configuration", 302, "Hospital account answers with status 302."),
        ("token", 503, "Hospital account answers with status 503."),
        ("keys", 301, "Hospital account answers with status 301."),
    ],
)
def test_a_broken_provider_is_named_and_redirects_are_not_followed(
    openid_site: Site, small: SmallProvider, path: str, status: int, sentence: str
) -> None:
    small.statuses = {path: status}
    client = openid_site.user()
    answer = client.get("/login/openid")
    if answer.status_code == 303:
        answer = client.get(small.browse(answer.headers["location"]))
    assert problem_of(answer).startswith(sentence)
    assert set(small.asked) == {"https://login.hospital.example"}


@pytest.mark.parametrize(
    ("discovery", "sentence"),
    [
        (
            {"issuer": f"{ISSUER}/"},
            f"Hospital account calls itself {ISSUER}/: set admin.openid.issuer to exactly that.",
        ),
        ({"token_endpoint": "http://login.hospital.example/token"}, "without usable token_endpoint"),
        ({"jwks_uri": None}, "without usable jwks_uri"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not support PKCE with S256"),
    ],
)
def test_a_provider_that_does_not_fit_is_not_used(
    openid_site: Site, small: SmallProvider, discovery: dict[str, Any], sentence: str
) -> None:
    small.discovery = discovery
    assert sentence in problem_of(openid_site.user().get("/login/openid"))


def test_what_the_id_token_lacks_comes_from_userinfo_of_the_same_user(openid_site: Site, small: SmallProvider) -> None:
    groups = small.user.pop("groups")
    small.userinfo = {"sub": "somebody else", "groups": ["pacs-admins"]}
    assert "answers about somebody else" in problem_of(sign_on(openid_site.user(), small))
    small.userinfo = {"sub": small.user["sub"], "groups": groups}
    assert entered(openid_site, small).get("/system").status_code == 200


def test_log_out_goes_on_to_the_provider_and_only_for_those_who_came_from_there(
    openid_site: Site, small: SmallProvider
) -> None:
    client = entered(openid_site, small)
    answer = client.post("/logout")
    query = parse_qs(urlsplit(answer.headers["refresh"].partition("url=")[2]).query)
    assert query == {"client_id": ["pleura"], "post_logout_redirect_uri": ["http://node/login"]}
    assert f'href="{ISSUER}/logout?' in answer.text
    assert "Grace" not in answer.text
    assert client.get("/").status_code == 303
    assert openid_site.logged_in("admin").post("/logout").headers["location"] == "/login"
    client = entered(openid_site, small)
    small.discovery = {"end_session_endpoint": None}
    assert client.post("/logout").headers["location"] == "/login"


def test_the_client_secret_reaches_the_provider_whatever_characters_it_has(
    openid_site: Site, small: SmallProvider
) -> None:
    entered(openid_site, small)
    small.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    entered(openid_site, small)


def test_without_openid_there_is_no_way_in(site: Site) -> None:
    assert "/login/openid" not in site.user().get("/login").text
    assert site.user().get("/login/openid").status_code == 404
    assert site.user().get("/login/openid/callback").status_code == 404
