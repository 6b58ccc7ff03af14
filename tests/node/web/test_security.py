"""Forged forms, guessed passwords, stolen cookies, lying proxies, and the headers of every answer."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from db.login_attempts import FAILURES_PER_ADDRESS, FAILURES_PER_USER
from node.web.authentication import safe_next
from tests.node.web.conftest import Site, csrf_of, log_in, make_site
from tests.node.web.demo import PASSWORD


def test_a_form_without_the_token_of_the_session_does_nothing(site: Site) -> None:
    client = site.logged_in("radiologist")
    for token in ("", "x", csrf_of(site.logged_in("radiologist"))):
        client.headers["x-csrf-token"] = token
        assert client.post("/studies/1/reported").status_code == 403
        assert client.post("/api/v1/studies/1/reported").status_code == 403
    assert site.services.worklist.rows([1])[0].reported_at is None


@pytest.mark.parametrize("header", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_a_form_from_another_site_does_nothing(site: Site, header: dict[str, str]) -> None:
    client = site.logged_in("radiologist")
    assert client.post("/studies/1/reported", headers=header).status_code == 403
    assert site.services.worklist.rows([1])[0].reported_at is None


def test_a_log_in_form_needs_the_cookie_that_came_with_it(site: Site) -> None:
    client = site.user()
    client.get("/login")
    answer = client.post("/login", data={"login_token": "guessed", "name": "ada", "password": PASSWORD})
    assert answer.status_code == 403
    assert "pleura_session" not in client.cookies


def test_a_wrong_password_and_an_unknown_name_answer_alike(site: Site) -> None:
    wrong = log_in(site.user(), "ada", "not the password")
    unknown = log_in(site.user(), "nobody-of-that-name", "not the password")
    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert "Name or password is wrong." in wrong.text
    assert "Name or password is wrong." in unknown.text


def test_guessing_is_stopped_for_a_name_even_with_the_right_password_and_ends(site: Site) -> None:
    for attempt in range(FAILURES_PER_USER):
        assert log_in(site.user(f"10.0.0.{attempt}"), "ada", "guess").status_code == 401
    stopped = log_in(site.user("10.0.0.99"), "ada", PASSWORD)
    assert stopped.status_code == 429
    assert stopped.headers["retry-after"]
    assert log_in(site.user(), "vera").status_code == 303
    site.clock.forward(minutes=16)
    assert log_in(site.user(), "ada").status_code == 303


def test_whoever_has_a_stolen_session_cannot_guess_the_password_for_a_new_one(site: Site) -> None:
    client = site.logged_in("viewer")
    form = {"password": "another long password", "again": "another long password"}
    for _ in range(FAILURES_PER_USER):
        assert client.post("/account", data={**form, "present": "guess"}).status_code == 400
    assert client.post("/account", data={**form, "present": PASSWORD}).status_code == 429


def test_guessing_many_names_from_one_address_is_stopped(site: Site) -> None:
    for attempt in range(FAILURES_PER_ADDRESS):
        assert log_in(site.user("10.9.9.9"), f"name{attempt}", "guess").status_code == 401
    assert log_in(site.user("10.9.9.9"), "ada").status_code == 429
    assert log_in(site.user("10.9.9.8"), "ada").status_code == 303


def test_a_name_that_may_be_a_mistyped_password_is_not_written_down(site: Site) -> None:
    log_in(site.user(), "my-secret-Password1", "x")
    trail = site.services.audit.entries()
    assert any(entry.action == "log in failed" for entry in trail)
    assert "secret" not in repr(trail).lower()


def test_a_session_ends_with_log_out_time_lock_and_new_password(site: Site) -> None:
    client = site.logged_in("viewer")
    stolen = client.cookies["pleura_session"]
    assert client.post("/logout").status_code == 303
    thief = site.user()
    thief.cookies.set("pleura_session", stolen)
    assert thief.get("/").status_code == 303

    late = site.logged_in("viewer")
    site.clock.forward(hours=12, seconds=1)
    assert late.get("/").status_code == 303

    locked = site.logged_in("viewer")
    user = site.services.accounts.find_user("vera")
    assert user is not None
    site.services.accounts.change_user(user.id, site.clock.now, actor="ada", disabled=True)
    assert locked.get("/").status_code == 303
    assert log_in(site.user(), "vera").status_code == 401

    site.services.accounts.change_user(user.id, site.clock.now, actor="ada", disabled=False)
    renewed = site.logged_in("viewer")
    site.services.accounts.set_password(user.id, "another long password", site.clock.now, actor="ada")
    assert renewed.get("/").status_code == 303


def test_changing_ones_own_password_keeps_this_session_and_ends_the_others(site: Site) -> None:
    here, there = site.logged_in("viewer"), site.logged_in("viewer")
    new = "a much better one"
    wrong = here.post("/account", data={"present": "no", "password": new, "again": new})
    assert wrong.status_code == 400
    assert here.post("/account", data={"present": PASSWORD, "password": "short", "again": "short"}).status_code == 400
    assert here.post("/account", data={"present": PASSWORD, "password": new, "again": new}).status_code == 303
    assert here.get("/").status_code == 200
    assert there.get("/").status_code == 303


def test_cookies_are_kept_from_scripts_and_other_sites(site: Site) -> None:
    answer = log_in(site.user(), "vera")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()


def test_the_database_keeps_no_secret_that_could_be_used(site: Site) -> None:
    client = site.logged_in("viewer")
    token = client.cookies["pleura_session"]
    site.demo.engine.dispose()
    raw = b"".join(path.read_bytes() for path in site.demo.folder.glob("pleura.sqlite*"))
    assert token.encode() not in raw
    assert PASSWORD.encode() not in raw
    assert b"$argon2id$" in raw


def test_every_answer_has_the_security_headers(site: Site) -> None:
    client = site.logged_in("admin")
    for path in ("/", "/studies/1", "/nothing", "/login", "/healthz", "/static/base.css", "/api/v1/worklist", "/try"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        if not path.startswith("/static/"):
            assert headers["cache-control"] == "no-store", path


def test_pages_say_what_they_are_and_hold_no_inline_script_or_style_and_name_no_other_host(site: Site) -> None:
    client = site.logged_in("admin")
    for path in (
        "/",
        "/studies/1",
        "/studies/1/history",
        "/system",
        "/users",
        "/audit",
        "/try",
        "/account",
        "/api/v1/docs",
        "/login?x",
    ):
        user = site.user() if path.startswith("/login") else client
        text = user.get(path).text
        # The settings in force are shown as text, and may name other hosts.
        text = re.sub(r'<pre class="settings".*?</pre>', "", text, flags=re.DOTALL)
        assert "not a medical device" in text, path
        assert " style=" not in text, path
        assert "<style" not in text, path
        assert " onclick=" not in text, path
        assert "<script>" not in text, path
        assert "http://" not in text.replace("http://www.w3.org", ""), path
        assert "https://" not in text, path
    missing = client.get("/nothing")
    assert missing.status_code == 404
    assert "not a medical device" in missing.text


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "", "/a\nb"]
)
def test_after_log_in_one_stays_on_this_site(path: str) -> None:
    assert safe_next(path) == "/"


def test_a_page_of_this_site_is_come_back_to() -> None:
    assert safe_next("/studies/3?image=4") == "/studies/3?image=4"


def test_an_overlong_body_is_refused(site: Site) -> None:
    client = site.logged_in("radiologist")
    assert client.post("/studies/1/hold", data={"reason": "x" * 70_000}).status_code == 413
    assert client.post("/api/v1/studies/1/hold", content=b"[" * 70_000).status_code == 413


@pytest.mark.parametrize(
    ("kind", "body"),
    [(b"application/x-www-form-urlencoded", b"name=a"), (b"multipart/form-data; boundary=x", b"--x\r\n")],
)
def test_a_browser_that_goes_away_while_it_sends_a_form_is_no_fault_of_ours(
    site: Site, kind: bytes, body: bytes
) -> None:
    received = iter([{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}])
    answers: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"host", b"testserver"), (b"content-type", kind)]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/login",
        "headers": headers,
        "query_string": b"",
        "scheme": "http",
    }
    asyncio.run(site.app(scope | {"client": ("127.0.0.1", 1), "server": ("testserver", 80)}, receive, send))
    assert answers[0]["status"] == 400


def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy(filled: Path, tmp_path: Path) -> None:
    site = make_site(filled, tmp_path / "s", trusted_proxies=("10.1.0.0/16",))
    for peer, written in (("10.1.2.3", "203.0.113.7"), ("192.0.2.9", "192.0.2.9")):
        client = site.user(peer)
        client.headers["x-forwarded-for"] = "198.51.100.1, 203.0.113.7"
        log_in(client, "ada", "wrong")
        assert site.services.audit.entries(limit=1)[0].address == written


def test_single_sign_on_is_believed_only_from_a_trusted_proxy(filled: Path, tmp_path: Path) -> None:
    site = make_site(
        filled,
        tmp_path / "s",
        trusted_proxies=("10.1.0.1",),
        sign_on_header="X-Remote-User",
        sign_on_new_users="viewer",
    )
    outside = site.user("10.1.0.2")
    outside.headers["x-remote-user"] = "ada"
    assert outside.get("/login").status_code == 200
    inside = site.user("10.1.0.1")
    inside.headers["x-remote-user"] = "Ada"
    assert inside.get("/login").status_code == 303
    assert inside.get("/users").status_code == 200
    inside.headers["x-remote-user"] = "vera"
    assert inside.get("/users").status_code == 303
    new = site.user("10.1.0.1")
    new.headers["x-remote-user"] = "new.person"
    assert new.get("/login").status_code == 303
    assert new.get("/").status_code == 200
    assert new.get("/system").status_code == 403


def test_metrics_are_for_this_machine_or_for_the_bearer_of_the_token(filled: Path, tmp_path: Path) -> None:
    open_site = make_site(filled, tmp_path / "a")
    assert "pleura_jobs" in open_site.user("127.0.0.1").get("/metrics").text
    assert open_site.user("192.0.2.1").get("/metrics").status_code == 403
    closed = make_site(filled, tmp_path / "b", metrics_token="scrape-me")
    assert closed.user().get("/metrics").status_code == 401
    answer = closed.user("192.0.2.1").get("/metrics", headers={"authorization": "Bearer scrape-me"})
    assert 'pleura_jobs{state="failed"} 1' in answer.text


def test_names_are_hidden_where_the_settings_say_so(filled: Path, tmp_path: Path) -> None:
    site = make_site(filled, tmp_path / "s", hide_patient_names=True)
    client = site.logged_in("admin")
    for path in ("/", "/studies/3", "/studies/3/history", "/api/v1/worklist", "/api/v1/studies/3"):
        text = client.get(path).text
        assert "Okafor" not in text, path
    assert "name hidden" in client.get("/").text


def test_browsers_that_came_by_tls_are_told_to_stay_there(filled: Path, tmp_path: Path) -> None:
    site = make_site(filled, tmp_path / "store", trusted_proxies=["10.0.0.1"])
    found = "strict-transport-security"
    assert found not in site.user().get("/login").headers
    assert found not in site.user().get("/login", headers={"x-forwarded-proto": "https"}).headers, "no trusted proxy"
    by_proxy = site.user("10.0.0.1").get("/login", headers={"x-forwarded-proto": "https"})
    assert by_proxy.headers[found] == "max-age=31536000"
    assert "; Secure" in by_proxy.headers["set-cookie"]
    quiet = make_site(filled, tmp_path / "quiet", trusted_proxies=["10.0.0.1"], hsts_seconds=0)
    assert found not in quiet.user("10.0.0.1").get("/login", headers={"x-forwarded-proto": "https"}).headers
