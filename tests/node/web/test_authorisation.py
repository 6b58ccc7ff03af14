"""Who may do what: every route for every role. A route that is missing from the table fails."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from starlette.routing import BaseRoute, Mount, Route

from tests.node.web.conftest import USERS, Site

NOBODY, VIEWER, RADIOLOGIST, ADMIN = "nobody", "viewer", "radiologist", "admin"
ORDER = (NOBODY, VIEWER, RADIOLOGIST, ADMIN)
API = "/api/v1"

# Route -> the least role that gets an answer of its own (no log-in page, no 403).
TABLE = {
    "GET /healthz": NOBODY,
    "GET /readyz": NOBODY,
    "GET /metrics": NOBODY,
    "GET /login": NOBODY,
    "POST /login": NOBODY,
    "GET /login/openid": NOBODY,
    "GET /login/openid/callback": NOBODY,
    "POST /logout": VIEWER,
    "GET /account": VIEWER,
    "POST /account": VIEWER,
    "POST /account/preferences": VIEWER,
    "GET /": VIEWER,
    "GET /events": VIEWER,
    "GET /studies/{study:row}": VIEWER,
    "GET /studies/{study:row}/history": VIEWER,
    "GET /studies/{study:row}/images/{instance:row}.png": VIEWER,
    "GET /studies/{study:row}/results/{result:row}.dcm": RADIOLOGIST,
    "GET /studies/{study:row}/results/{result:row}/segments/{segment:row}.png": VIEWER,
    "POST /studies/{study:row}/findings/{finding:row}": RADIOLOGIST,
    "POST /studies/{study:row}/{action:str}": RADIOLOGIST,
    "GET /try": RADIOLOGIST,
    "POST /try": RADIOLOGIST,
    "GET /try/{key:str}": RADIOLOGIST,
    "GET /try/{key:str}/image.png": RADIOLOGIST,
    "GET /try/{key:str}/findings/{finding:row}.png": RADIOLOGIST,
    "GET /worklist.csv": VIEWER,
    "POST /worklist/change": RADIOLOGIST,
    "POST /worklist/filters": VIEWER,
    "POST /worklist/filters/{filter:row}/delete": VIEWER,
    "GET /system": RADIOLOGIST,
    "GET /system/models/{name:str}": RADIOLOGIST,
    "POST /system/models/{name:str}/state": ADMIN,
    "POST /system/destinations/{name:str}/echo": ADMIN,
    "POST /system/destinations/{name:str}/test": ADMIN,
    "POST /system/problems/retry": ADMIN,
    "POST /system/notifications/{name:str}/again": ADMIN,
    "GET /users": ADMIN,
    "POST /users": ADMIN,
    "POST /users/{user:row}": ADMIN,
    "POST /tokens": ADMIN,
    "POST /tokens/{token:row}/revoke": ADMIN,
    "GET /studies/{study:row}/erase": ADMIN,
    "POST /studies/{study:row}/erase": ADMIN,
    "GET /audit": ADMIN,
    "GET /audit/export": ADMIN,
    f"GET {API}/openapi.json": VIEWER,
    f"GET {API}/docs": VIEWER,
    f"GET {API}/studies": VIEWER,
    f"GET {API}/worklist": VIEWER,
    f"GET {API}/studies/{{study}}": VIEWER,
    f"POST {API}/studies/{{study}}/priority": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/hold": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/release": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/reported": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/unreported": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/jobs/{{job}}/retry": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/deliveries/{{delivery}}/resend": RADIOLOGIST,
    f"POST {API}/studies/{{study}}/findings/{{finding}}/feedback": RADIOLOGIST,
    f"GET {API}/studies/{{study}}/erasure": ADMIN,
    f"POST {API}/studies/{{study}}/erase": ADMIN,
    f"GET {API}/system": RADIOLOGIST,
    f"GET {API}/problems": RADIOLOGIST,
    f"POST {API}/problems/retry": ADMIN,
    f"GET {API}/drift": RADIOLOGIST,
    f"GET {API}/models": RADIOLOGIST,
    f"POST {API}/models/{{name}}/state": ADMIN,
    f"GET {API}/audit": ADMIN,
}
FILLED = {
    "{study:row}": "1",
    "{instance:row}": "1",
    "{result:row}": "1",
    "{segment:row}": "1",
    "{finding:row}": "1",
    "{filter:row}": "1",
    "{user:row}": "1",
    "{token:row}": "999",
    "{study}": "1",
    "{job}": "1",
    "{delivery}": "1",
    "{finding}": "1",
    "{name}": "archive",
    "{key:str}": "none",
    "{name:str}": "archive",
    "{action:str}": "unreported",
}


def _path(route: str) -> str:
    path = route.split(" ", 1)[1]
    for name, value in FILLED.items():
        path = path.replace(name, value)
    assert "{" not in path, path
    return path


def test_the_table_names_every_route(site: Site) -> None:
    assert _served(site.app.routes) == set(TABLE)


def _served(routes: Sequence[BaseRoute], prefix: str = "") -> set[str]:
    """Every route that answers, also of what is mounted."""
    served = set()
    for route in routes:
        if isinstance(route, Mount):
            assert route.path in ("/static", API)
            served |= _served(route.routes, prefix + route.path)
            continue
        assert isinstance(route, Route)
        assert route.methods is not None
        served |= {f"{method} {prefix}{route.path}" for method in route.methods - {"HEAD"}}
    return served


@pytest.mark.parametrize("who", ORDER)
def test_every_route_lets_in_exactly_the_roles_of_the_table(site: Site, who: str) -> None:
    client = site.user() if who == NOBODY else site.logged_in(who)
    wrong = []
    # Logging out comes last: it is allowed, and then everything else is not.
    for route, least in sorted(TABLE.items(), key=lambda item: item[0] == "POST /logout"):
        method, path = route.split(" ", 1)[0], _path(route)
        if path == "/events" and ORDER.index(who) >= ORDER.index(least):
            continue  # an endless answer; test_live reads it
        answer = client.request(method, path, json={} if method == "POST" and path.startswith(API) else None)
        sent_to_log_in = answer.status_code == 303 and answer.headers["location"].startswith("/login")
        not_eligible = answer.status_code in (401, 403) or (sent_to_log_in and path != "/logout")
        if path == "/login":
            not_eligible = "Log in" not in answer.text and answer.status_code != 303
        if who == NOBODY and path == "/logout":
            not_eligible = True if sent_to_log_in else not_eligible
        if not_eligible != (ORDER.index(who) < ORDER.index(least)):
            wrong.append((route, who, answer.status_code))
        assert answer.status_code != 500, route
    assert not wrong


@pytest.mark.parametrize("role", USERS)
def test_a_token_has_the_rights_of_its_role(site: Site, role: str) -> None:
    from db.user_tables import Role

    _, secret = site.services.accounts.add_token(f"t-{role}", Role(role), site.clock.now, actor="ada")
    client = site.user()
    client.headers["authorization"] = f"Bearer {secret}"
    assert client.get(f"{API}/worklist").status_code == 200
    assert client.get(f"{API}/audit").status_code == (200 if role == "admin" else 403)
    on_hold = client.post(f"{API}/studies/1/hold", json={"reason": "wrong patient"})
    assert on_hold.status_code == (403 if role == "viewer" else 200)


def test_nothing_of_a_patient_is_readable_without_log_in(site: Site) -> None:
    client = site.user()
    for route in TABLE:
        if route.startswith("GET") and route != "GET /events":
            text = client.get(_path(route)).text
            for secret in ("Okafor", "K-20418", "1.2.826"):
                assert secret not in text, route


@pytest.mark.parametrize("role", USERS)
def test_the_navigation_offers_exactly_what_a_role_may_open(site: Site, role: str) -> None:
    bar = re.search(r'<nav aria-label="Main">(.*?)</nav>', site.logged_in(role).get("/account").text, re.DOTALL)
    assert bar is not None
    offered = set(re.findall(r'href="([^"]*)"', bar[1]))
    entries = {"/", "/try", "/system", "/users", "/audit"}
    assert offered == {path for path in entries if ORDER.index(TABLE[f"GET {path}"]) <= ORDER.index(role)}
