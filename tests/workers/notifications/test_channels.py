"""Every channel against a real receiver: what arrives, how it is protected, and what counts as not sent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import hl7
import pytest

from config.notice import NOTICE
from config.notifications import Email, HL7Notification, Notifications, Webhook
from config.settings import Settings, Site
from db.notifications import Notification
from db.states import Priority
from tests.dripping import dripping
from tests.workers.notifications.receivers import accept, content_of, hospital, mail, make_certificate, web
from workers.notifications.channel import NotSentError, PartlySentError
from workers.notifications.channels import CHANNELS, enabled_channels, notification_rules
from workers.notifications.formatting import digits, text, trial_notification, values
from workers.notifications.observation_report import report as report_of
from workers.notifications.webhook import signature

NOW = datetime(2026, 3, 1, 3, 20, tzinfo=UTC)
NOTIFICATION = Notification(
    id=7,
    study_id=12,
    channel="webhook",
    reason="pneumothorax",
    key="0123456789abcdef0123456789abcdef",
    probability=0.934,
    attempts=1,
    created_at=NOW - timedelta(minutes=1),
    study_instance_uid="1.2.826.0.2.1",
    accession_number="A-1",
    placer_order_number="PL-1",
    filler_order_number="FI-1",
    patient_id="P1",
    issuer_of_patient_id="NORTH",
    patient_name="Doe^Jane^Mary^Dr^Jr",
    patient_birth_date="19700101",
    patient_sex="F",
    study_date="20260301",
    study_time="030000.000",
    study_description="Chest & ribs | portable",
    priority=Priority.CRITICAL,
    due_at=NOW + timedelta(minutes=15),
)
SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes....").decode()


def settings(**parts: Any) -> Settings:
    link = "https://pleura.example/"
    return Settings(site=Site(name="North Hospital"), notifications=Notifications(link=link, **parts))


def webhook(port: int, scheme: str = "http", **more: Any) -> Settings:
    url = f"{scheme}://127.0.0.1:{port}/notifications?from=pleura"
    return settings(webhook=Webhook(enabled=True, url=url, secret=SECRET, timeout_seconds=20, **more))


def email(port: int, security: str = "none", **more: Any) -> Settings:
    people = {"sender": "Pleura <pleura@north.example>", "recipients": ("a@north.example", "b@north.example")}
    return settings(
        email=Email(enabled=True, host="127.0.0.1", port=port, security=security, timeout_seconds=20, **people | more)
    )


def report(port: int, **more: Any) -> Settings:
    return settings(hl7=HL7Notification(enabled=True, host="127.0.0.1", port=port, timeout_seconds=20, **more))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


# Webhook


def test_a_webhook_gets_signed_json_without_a_name() -> None:
    with web() as server:
        CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port), NOW)
    (request,) = server.requests
    assert request.path == "/notifications?from=pleura"
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == NOTIFICATION.key
    timestamp = request.headers["webhook-timestamp"]
    assert int(timestamp) == NOW.timestamp()
    signed = f"{NOTIFICATION.key}.{timestamp}.".encode() + request.body
    expected = base64.b64encode(hmac.new(b"a secret of 24 bytes....", signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    content = json.loads(request.body)
    assert content["finding"] == {"label": "pneumothorax", "probability": 0.934, "status": "suspected"}
    assert content["study"]["accession_number"] == "A-1"
    assert content["notice"] == NOTICE
    assert content["link"] == "https://pleura.example/studies/12"
    assert "Doe" not in request.body.decode()


def test_the_receiver_of_the_documentation_takes_what_is_sent_and_nothing_else() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "http-api.md"
    (code,) = re.findall(r"```python\n(import base64.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    receiver: dict[str, Any] = {}
    exec(code, receiver)  # noqa: S102 - our own page
    with web() as server:
        CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port), datetime.now(UTC))
        CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port), datetime.now(UTC) - timedelta(hours=1))
    now, old = server.requests
    secret = SECRET
    assert receiver["is_genuine"](secret, now.headers, now.body)
    assert not receiver["is_genuine"](secret, now.headers, now.body.replace(b"0.934", b"0.134"))
    assert not receiver["is_genuine"]("another secret", now.headers, now.body)
    assert not receiver["is_genuine"](secret, old.headers, old.body), "it may be replayed"


def test_the_signature_is_that_of_the_published_example() -> None:
    # The example of the Standard Webhooks specification.
    secret, key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert (
        signature(secret, key, 1614265330, b'{"test": 2432232314}') == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_second_attempt_has_the_same_key_and_body() -> None:
    with web() as server:
        CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port), NOW)
        CHANNELS["webhook"].send(replace(NOTIFICATION, attempts=2), webhook(server.port), NOW + timedelta(hours=1))
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_a_name_is_sent_where_it_is_asked_for() -> None:
    with web() as server:
        CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port, patient_name=True), NOW)
    assert json.loads(server.requests[0].body)["study"]["patient_name"] == NOTIFICATION.patient_name


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_anything_but_success_is_not_sent(status: int) -> None:
    with web(status=status) as server, pytest.raises(NotSentError, match=str(status)):
        CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port), NOW)
    assert len(server.requests) == 1, "a redirect must not be followed"


def test_a_webhook_that_drips_meets_the_time_limit() -> None:
    with dripping() as url:
        there = settings(webhook=Webhook(enabled=True, url=url, secret=SECRET, timeout_seconds=0.2))
        with pytest.raises(NotSentError, match="TimeoutError"):
            CHANNELS["webhook"].send(NOTIFICATION, there, NOW)


@pytest.mark.peer("openssl")
def test_https_is_verified(certificate: Path) -> None:
    with web(certificate) as server:
        with pytest.raises(NotSentError, match="SSLCertVerificationError"):
            CHANNELS["webhook"].send(NOTIFICATION, webhook(server.port, "https"), NOW)
        trusting = webhook(server.port, "https", ca_file=certificate)
        assert "127.0.0.1" in CHANNELS["webhook"].verify(trusting)
        CHANNELS["webhook"].send(NOTIFICATION, trusting, NOW)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://north.example/", "ftp://127.0.0.1/", "http://127.0.0.1.evil.example/"])
def test_plain_http_is_for_this_machine_alone(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Webhook(url=url)


# E-mail


def test_mail_tells_all_but_the_patient() -> None:
    with mail() as server:
        CHANNELS["email"].send(NOTIFICATION, email(server.port), NOW)
    (envelope,) = server.envelopes
    assert envelope.rcpt_tos == ["a@north.example", "b@north.example"]
    assert envelope.mail_from == "pleura@north.example"
    raw = content_of(envelope)
    message = message_from_bytes(raw, policy=policy.default)
    assert message["Message-ID"] == f"<{NOTIFICATION.key}@north.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Subject"] == "Pleura: suspected pneumothorax 93%, accession A-1 (research use only)"
    text = message.get_content()
    assert "https://pleura.example/studies/12" in text
    assert NOTICE in text
    assert not any(secret in raw.decode() for secret in ("Doe", "Jane", "P1"))


def test_mail_names_the_patient_where_it_is_asked_to() -> None:
    with mail() as server:
        CHANNELS["email"].send(NOTIFICATION, email(server.port, patient_name=True), NOW)
    assert b"Doe^Jane" in content_of(server.envelopes[0])


def test_a_mail_server_that_never_comes_to_its_greeting_meets_the_time_limit() -> None:
    with dripping(b"220-wait a moment\r\n") as url:
        there = email(int(url.rpartition(":")[2]))
        quick = there.notifications.email.model_copy(update={"timeout_seconds": 0.2})
        there = settings(email=quick)
        with pytest.raises(NotSentError, match="TimeoutError"):
            CHANNELS["email"].verify(there)


@pytest.mark.peer("openssl")
def test_mail_is_secured_and_logged_in(certificate: Path) -> None:
    account = {"user": "pleura", "password": "secret"}
    with mail(certificate, log_in=True) as server:
        with pytest.raises(NotSentError, match="SSLCertVerificationError"):
            CHANNELS["email"].send(NOTIFICATION, email(server.port, "starttls", **account), NOW)
        trusting = email(server.port, "starttls", ca_file=certificate, **account)
        assert "logged in" in CHANNELS["email"].verify(trusting)
        CHANNELS["email"].send(NOTIFICATION, trusting, NOW)
        wrong = email(server.port, "starttls", ca_file=certificate, user="pleura", password="wrong")
        with pytest.raises(NotSentError, match=r"did not accept it .* 535"):
            CHANNELS["email"].send(NOTIFICATION, wrong, NOW)
    assert server.secured == [True]


def test_a_server_without_starttls_gets_nothing() -> None:
    with mail() as server, pytest.raises(NotSentError, match="SMTPNotSupportedError"):
        CHANNELS["email"].send(NOTIFICATION, email(server.port, "starttls"), NOW)
    assert server.envelopes == []


def test_one_recipient_that_is_refused_is_still_owed_the_message_and_the_others_do_not_hear_twice() -> None:
    with mail(refuse=frozenset({"b@north.example"})) as server:
        with pytest.raises(PartlySentError, match=r"recipient 2 \(550\) of 2") as caught:
            CHANNELS["email"].send(NOTIFICATION, email(server.port), NOW)
        assert caught.value.taken_by == ("a@north.example",)
        assert "north.example" not in str(caught.value)
        server.refuse = frozenset()
        CHANNELS["email"].send(replace(NOTIFICATION, taken_by=caught.value.taken_by), email(server.port), NOW)
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [["a@north.example"], ["b@north.example"]]


@pytest.mark.parametrize("options", [{"answer": "451 later"}, {"refuse": {"a@north.example", "b@north.example"}}])
def test_mail_that_is_not_taken_is_not_sent(options: dict[str, Any]) -> None:
    with mail(**options) as server, pytest.raises(NotSentError, match="did not accept it"):
        CHANNELS["email"].send(NOTIFICATION, email(server.port), NOW)
    assert server.envelopes == []


# HL7


def test_a_preliminary_report_reaches_the_hospital() -> None:
    with hospital() as server:
        CHANNELS["hl7"].send(NOTIFICATION, report(server.port, receiving_application="EHR"), NOW)
    (text,) = server.messages
    message = hl7.parse(text)
    assert str(message.segment("MSH")[9]) == "ORU^R01^ORU_R01"
    assert str(message.segment("MSH")[10]) == NOTIFICATION.key[:20]
    assert (str(message.segment("MSH")[4]), str(message.segment("MSH")[5])) == ("North Hospital", "EHR")
    assert str(message.segment("PID")[3]) == "P1^^^NORTH^MR"
    assert str(message.segment("PID")[5]) == "Doe^Jane^Mary^Jr^Dr^^L"
    assert (str(message.segment("OBR")[2]), str(message.segment("OBR")[3]), str(message.segment("OBR")[18])) == (
        "PL-1",
        "FI-1",
        "A-1",
    )
    assert str(message.segment("OBR")[25]) == "P"
    observations = message.segments("OBX")
    assert {str(one[11]) for one in observations} == {"P"}
    assert "suspected pneumothorax 93%" in str(observations[0][5])
    assert any(NOTIFICATION.study_instance_uid in str(one) for one in observations)
    assert NOTICE in text


def test_a_report_tells_the_time_of_the_hospital_s_clocks() -> None:
    """The offset of MSH-7 is that of all times without one (HL7 2.5.1, 2.14.9.7), such as the study's in OBR-7."""
    zoned = settings().model_copy(update={"site": Site(time_zone="Europe/Berlin")})
    message = hl7.parse(report_of(NOTIFICATION, zoned, datetime(2026, 7, 1, 22, 30, tzinfo=UTC)))
    times = {str(message.segment("MSH")[7]), str(message.segment("OBR")[22])}
    times |= {str(one[14]) for one in message.segments("OBX") if len(one) > 14}
    assert times == {"20260702003000+0200"}
    assert str(message.segment("OBR")[7]) == "20260301030000"


def test_a_report_without_a_name() -> None:
    with hospital() as server:
        CHANNELS["hl7"].send(NOTIFICATION, report(server.port, patient_name=False), NOW)
    assert "Doe" not in server.messages[0]
    assert str(hl7.parse(server.messages[0]).segment("PID")[5]) == "^^^^^^S"


def test_our_own_report_takes_no_study_off_our_own_list() -> None:
    from config.hl7 import HL7
    from node.hl7.interpretation import interpret
    from workers.hl7.message import read_message
    from workers.notifications.observation_report import report as written

    raw = written(NOTIFICATION, settings(), NOW).encode()
    (order,) = interpret(read_message(raw), raw, HL7()).orders
    assert order.keys.accession_number == "A-1"
    assert not order.reported


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (lambda message: accept(message, "AE"), "AE"),
        (lambda message: accept(message, "AR"), "AR"),
        (lambda _: accept("MSH|^~\\&|||||||ORU^R01|OTHER|P|2.5\r"), "another message"),
        (lambda _: "hello", "acknowledgement"),
        (lambda _: "", "without an answer"),
    ],
)
def test_what_is_not_acknowledged_is_not_sent(reply: Any, problem: str) -> None:
    with hospital(reply=reply) as server, pytest.raises(NotSentError, match=problem):
        CHANNELS["hl7"].send(NOTIFICATION, report(server.port), NOW)


@pytest.mark.peer("openssl")
def test_hl7_by_tls_is_verified(certificate: Path) -> None:
    with hospital(certificate) as server:
        with pytest.raises(NotSentError, match="SSLCertVerificationError"):
            CHANNELS["hl7"].send(NOTIFICATION, report(server.port, tls=True), NOW)
        CHANNELS["hl7"].send(NOTIFICATION, report(server.port, tls=True, ca_file=certificate), NOW)
    assert len(server.messages) == 1


# All of them


def closed_port() -> int:
    with web() as server:
        return server.port


@pytest.mark.parametrize(("name", "make"), [("webhook", webhook), ("email", email), ("hl7", report)])
def test_nobody_there_is_not_sent_and_quotes_nothing(name: str, make: Any) -> None:
    port = closed_port()
    with pytest.raises(NotSentError) as caught:
        CHANNELS[name].send(NOTIFICATION, make(port), NOW)
    with pytest.raises(NotSentError):
        CHANNELS[name].verify(make(port))
    assert not any(secret in str(caught.value) for secret in ("Doe", "P1", "A-1"))
    assert "nothing listens on that host and port" in str(caught.value) or "refused" in str(caught.value)


@pytest.mark.parametrize("name", CHANNELS)
def test_a_test_message_says_that_it_is_one(name: str) -> None:
    trial = trial_notification(name, "f" * 32, NOW)
    with web() as site, mail() as post, hospital() as ehr:
        made = {"webhook": webhook(site.port), "email": email(post.port), "hl7": report(ehr.port)}
        CHANNELS[name].send(trial, made[name], NOW)
    messages = {
        "webhook": [one.body.decode() for one in site.requests],
        "email": [content_of(one).decode() for one in post.envelopes],
        "hl7": ehr.messages,
    }
    assert "test" in messages[name][0].lower()
    assert "Research use only" in messages[name][0]
    assert sum(map(len, messages.values())) == 1


def test_every_channel_is_off_by_default() -> None:
    assert enabled_channels(Settings()) == ()
    assert notification_rules(Settings()).channels == ()


def test_a_channel_that_lacks_something_cannot_be_enabled() -> None:
    for name, part in (("webhook", Webhook), ("email", Email), ("hl7", HL7Notification)):
        with pytest.raises(ValueError, match=f"{name} is enabled: set"):
            Notifications(**{name: part(enabled=True)})


def test_a_date_that_is_none_does_not_leave_the_node() -> None:
    """A modality may have put a name where a date belongs."""
    odd = replace(NOTIFICATION, study_date="Roe^Jim", study_time="Roe", patient_birth_date="Roe^Jim")
    node = settings()
    message = f"{values(odd, node, patient_name=False)}{text(odd, node, patient_name=False)}{report_of(odd, node, NOW)}"
    assert "Roe" not in message
    assert digits("030000.000") == "030000"


def test_every_channel_that_can_be_configured_is_there() -> None:
    assert tuple(Settings().notifications.channels) == tuple(CHANNELS)
