"""Notification by HL7 v2: an observation report ORU^R01 with preliminary status.

It must not be final: a final report would remove the study from the worklists of its receivers, this node included.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime

from config.notice import NOTICE
from config.notifications import HL7Notification
from config.settings import Settings
from db.notifications import Notification
from workers.hl7.message import MessageError, composed, read_message, write_message
from workers.hl7.mllp import ExchangeError, FramingError, exchange
from workers.notifications.channel import NotSentError
from workers.notifications.formatting import TEST, digits, finding_text, link_to

_LONGEST_CONTROL_ID = 20
_LOCAL = "99PLEURA"
_NAMELESS = composed("", "", "", "", "", "", "S")
"""PID-5 without a name: an empty pseudonym (table 0200, S)."""


class HL7Channel:
    """See :class:`workers.notifications.channel.Channel`."""

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        """Send the report and wait until its receiver has accepted it."""
        hl7 = settings.notifications.hl7
        raw = report(notification, settings, now).encode()
        try:
            answer = exchange((hl7.host, hl7.port), raw, hl7.timeout_seconds, _tls(hl7))
            acknowledgement = read_message(answer).first("MSA")
        except (ExchangeError, FramingError, MessageError) as error:
            raise NotSentError(f"no acknowledgement: {error}") from error
        code = acknowledgement.text(1) if acknowledgement else "nothing"
        if code not in ("AA", "CA"):
            raise NotSentError(f"the receiver answered {code}")
        if acknowledgement and acknowledgement.text(2) != control_id(notification):
            raise NotSentError("the receiver acknowledged another message")

    def verify(self, settings: Settings) -> str:
        """Connect, with TLS if it is configured, and disconnect."""
        hl7 = settings.notifications.hl7
        tls = _tls(hl7)
        try:
            with socket.create_connection((hl7.host, hl7.port), hl7.timeout_seconds) as plain:
                if tls is not None:
                    tls.wrap_socket(plain, server_hostname=hl7.host).close()
        except OSError as error:
            raise NotSentError(f"no connection to {hl7.host}:{hl7.port}: {error}") from error
        return f"{hl7.host}:{hl7.port} accepts connections"


def control_id(notification: Notification) -> str:
    """MSH-10: the beginning of the key (every HL7 version allows 20 characters)."""
    return notification.key[:_LONGEST_CONTROL_ID]


def report(notification: Notification, settings: Settings, now: datetime) -> str:
    """The message: version 2.5.1, in UTF-8."""
    hl7 = settings.notifications.hl7
    # The offset of MSH-7 is that of all times without one (2.14.9.7): the study's are by the hospital's clocks.
    moment = now.astimezone(settings.site.zone).strftime("%Y%m%d%H%M%S%z")
    return write_message(
        [
            _msh(notification, settings, moment),
            _pid(notification, hl7),
            ("ORC", "RE", _plain(notification.placer_order_number), _plain(_filler(notification))),
            _obr(notification, hl7, moment),
            *_observations(notification, settings, moment),
            ("NTE", "1", "", _plain(f"{NOTICE} Result of an algorithm, not reviewed by a radiologist.")),
        ]
    )


def _plain(text: str) -> str:
    """Encode a field of one component."""
    return composed(text)


def _msh(notification: Notification, settings: Settings, moment: str) -> tuple[str, ...]:
    hl7 = settings.notifications.hl7
    return (
        "MSH",
        _plain(hl7.sending_application),
        _plain(hl7.sending_facility or settings.site.name),
        _plain(hl7.receiving_application),
        _plain(hl7.receiving_facility),
        moment,
        "",
        composed("ORU", "R01", "ORU_R01"),
        control_id(notification),
        "T" if notification.reason == TEST else "P",
        "2.5.1",
        *[""] * 5,
        "UNICODE UTF-8",
    )


def _pid(notification: Notification, hl7: HL7Notification) -> tuple[str, ...]:
    # PN: family, given, middle, prefix, suffix; XPN has suffix before prefix.
    family, given, middle, prefix, suffix = (notification.patient_name.split("=")[0].split("^") + [""] * 5)[:5]
    name = composed(family, given, middle, suffix, prefix, "", "L") if hl7.patient_name else _NAMELESS
    identifier = composed(notification.patient_id, "", "", notification.issuer_of_patient_id, "MR")
    return ("PID", "1", "", identifier, "", name, "", digits(notification.patient_birth_date), notification.patient_sex)


def _filler(notification: Notification) -> str:
    """Filler order number. A report needs one, so without an order it is made of the accession number or the row."""
    return notification.filler_order_number or notification.accession_number or f"PLEURA-{notification.study_id}"


def _obr(notification: Notification, hl7: HL7Notification, moment: str) -> tuple[str, ...]:
    fields = [""] * 26
    fields[1] = "1"
    fields[2] = _plain(notification.placer_order_number)
    fields[3] = _plain(_filler(notification))
    fields[4] = composed("CXR-AI", "Chest radiograph, automated analysis", _LOCAL)
    fields[7] = (digits(notification.study_date) + digits(notification.study_time))[:14]
    fields[22] = moment
    fields[25] = "P"
    fields[int(hl7.accession_field.removeprefix("OBR-"))] = _plain(notification.accession_number)
    return ("OBR", *fields[1:])


def _observations(notification: Notification, settings: Settings, moment: str) -> list[tuple[str, ...]]:
    """OBX segments: the finding, its probability, the study, and the address of its page."""
    label = composed(notification.reason, notification.reason.replace("_", " "), _LOCAL)
    score = "" if notification.probability is None else f"{notification.probability:.4f}"
    observations = [
        ("ST", label, f"suspected {finding_text(notification)}", "AA"),
        ("NM", composed("probability", "Probability of the finding", _LOCAL), score, ""),
        ("ST", composed("113014", "DICOM Study", "DCM"), notification.study_instance_uid, ""),
        ("ST", composed("link", "Page of the study", _LOCAL), link_to(notification, settings), ""),
    ]
    kept = [one for one in observations if one[2]]
    return [
        ("OBX", str(number), kind, what, "", _plain(value), "", "", flag, "", "", "P", "", "", moment)
        for number, (kind, what, value, flag) in enumerate(kept, 1)
    ]


def _tls(hl7: HL7Notification) -> ssl.SSLContext | None:
    if not hl7.tls:
        return None
    try:
        return ssl.create_default_context(cafile=hl7.ca_file)
    except OSError as error:
        raise NotSentError(f"notifications.hl7.ca_file cannot be read: {error}") from error
