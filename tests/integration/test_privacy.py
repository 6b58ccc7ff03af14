"""What a patient's record says is nowhere but where it is meant to be.

A whole node runs with the lowest log level: it takes a radiograph whose every attribute has a word that occurs nowhere
else, odd ones, HL7 messages, requests that are wrong, and a caller that it rejects; destinations take results, refuse
them with the patient's name in the comment, and are down. Then everything that it wrote is searched for every word.
Where values are meant to be: the database, the store, the objects that it sends, and what the configuration lets into
notifications and audit messages.
"""

from __future__ import annotations

import base64
import json
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from tests.integration import patient_values
from tests.integration.patient_values import ACCESSION, DESCRIPTION, ID, WORDS, found_below, found_in
from tests.integration.pleura import Pleura, descendants, write_config
from tests.node.hl7.messages import message
from tests.orthanc import wait_until
from tests.ports import free_port
from tests.viewers.phantoms import as_bytes
from tests.workers.notifications.receivers import Mail, Web, content_of, mail, web
from workers.hl7.mllp import frame

# Words instead of dates, codes and character sets are what the run is about.
pytestmark = [pytest.mark.filterwarnings(f"ignore::UserWarning:pydicom.{module}") for module in ("valuerep", "charset")]

PASSWORD = "correct horse battery"
MODALITY = "MODALITY1"


# --- the search finds what it looks for


@pytest.mark.parametrize("kind", WORDS)
def test_the_search_finds_every_word_however_it_is_written(kind: str) -> None:
    for word in WORDS[kind]:
        for text in (word, word.upper(), word.lower()):
            written = [
                text.encode(),
                text.encode("latin-1"),
                text.encode("utf-16-le"),
                httpx.QueryParams(q=text).__str__().encode(),
            ]
            written += [json.dumps(text).encode(), repr(text.encode("latin-1")).encode()]
            written += [base64.b64encode(b"x" * before + text.encode() + b"y") for before in range(4)]
            for content in written:
                assert kind in found_in(b"2026 INFO " + content + b" ok"), content
    assert kind not in found_in(b"2026 INFO ok", ())
    assert found_in(b"".join(words[0].encode() for words in WORDS.values()), but=WORDS) == {}


def test_the_search_looks_into_files_and_their_names(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "kept").write_text("Quxelbrandt")
    (tmp_path / "log").write_text("user=quxelbrandt")
    (tmp_path / "of-KZQ-7741903").write_text("")
    found = found_below(tmp_path, without=("store",))
    assert {path: list(kinds) for path, kinds in found.items()} == {
        "log": ["name"],
        "of-KZQ-7741903": ["patient ID"],
    }


# --- the run


@dataclass
class Run:
    """Everything that came out of a node, by what it is."""

    folder: Path
    texts: dict[str, bytes] = field(default_factory=dict)
    webhook: list[bytes] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    audit: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    core_limits: set[str] = field(default_factory=set)


@contextmanager
def _peer(port: int, status: int, got: list[bytes]) -> Iterator[None]:
    """A destination that answers every object with ``status``, and repeats the patient's name in its comment."""

    def take(event: evt.Event) -> Dataset:
        got.append(event.request.DataSet.getvalue())
        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = "no patient QUXELBRANDT KZQ-7741903"
        return answer

    entity = AE("ARCHIVE")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    try:
        yield
    finally:
        server.shutdown()


@contextmanager
def _repository(got: list[bytes]) -> Iterator[int]:
    """A receiver of syslog by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving:
        receiving.bind(("127.0.0.1", 0))
        receiving.settimeout(0.2)
        ending = threading.Event()

        def receive() -> None:
            while not ending.is_set():
                try:
                    got.append(receiving.recv(65536))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield receiving.getsockname()[1]
        finally:
            ending.set()
            thread.join()


def _configure(folder: Path, ports: dict[str, int], hook: Web, post: Mail) -> Path:
    return write_config(
        folder,
        listener={"port": ports["listener"], "peers": [{"ae_title": MODALITY}]},
        workers={
            "scheduler_interval_seconds": 0.3,
            "backoff_seconds": 0.5,
            "attempts": 2,
            "unreachable_attempts": 3,
        },
        admin={"port": ports["admin"]},
        hl7={"enabled": True, "port": ports["hl7"]},
        logs={"level": "DEBUG"},
        notifications={
            "maximum_age_hours": 1000000,
            "link": "https://pleura.hospital",
            "webhook": {"enabled": True, "url": f"http://127.0.0.1:{hook.port}/", "secret": "s"},
            "email": {
                "enabled": True,
                "host": "127.0.0.1",
                "port": post.port,
                "security": "none",
                "sender": "pleura@north.example",
                "recipients": ["reader@north.example"],
            },
        },
        audit={"repositories": [{"name": "arr", "host": "127.0.0.1", "port": ports["audit"], "transport": "udp"}]},
        destinations=[
            {"name": name, "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": ports[name]}
            for name in ("pacs", "full", "down")
        ],
    )


def _store(port: int, images: list[FileDataset], calling: str = MODALITY) -> list[int]:
    """Send images as a modality does, as they are; the status of each, -1 where there was no answer."""
    entity = AE(calling)
    entity.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="PLEURA")
    statuses = []
    for image in images if association.is_established else ():
        try:
            statuses.append(int(association.send_c_store(image).get("Status", -1)))
        except (ValueError, AttributeError, RuntimeError):
            statuses.append(-1)
    if association.is_established:
        association.release()
    return statuses


def _hl7(port: int, run: Run) -> None:
    """Every message, and what is no message; acknowledgements are kept."""
    messages = [
        message(kind, f"C{number}", *lines) for number, (kind, lines) in enumerate(patient_values.hl7_segments())
    ]
    messages += [message("ORM^O01", "C77").replace(b"UNICODE UTF-8", b"Quxelbrandt"), b"Quxelbrandt|KZQ-7741903\r"]
    for number, raw in enumerate(messages):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sender:
            sender.sendall(frame(raw))
            sender.settimeout(30)
            run.texts[f"acknowledgement {number}"] = sender.recv(65536)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sender:
        sender.sendall(b"GET /Quxelbrandt HTTP/1.1\r\n\r\n")


def _pages(port: int, token: str, run: Run) -> None:
    """Requests that are wrong, with the patient's words in them; what is answered with an error is kept."""
    word, url = "Quxelbrandt KZQ-7741903", f"http://127.0.0.1:{port}"
    broken = patient_values.radiograph()
    broken.PhotometricInterpretation = "THORAXQUIRL"
    with httpx.Client(base_url=url, timeout=60) as page:
        for name, password, status in ((word, word, 401), ("ada", PASSWORD, 303)):
            values = {"login_token": _hidden(page, "/login", "login_token"), "next": "/"}
            assert page.post("/login", data={**values, "name": name, "password": password}).status_code == status
        for path in ("/", "/system", "/audit", "/users", "/try", "/studies/1", "/studies/1/history"):
            assert page.get(path, params={"q": word}).status_code == 200, path
        answers = {
            "no token": page.post("/studies/1/hold", data={"reason": word}),
            "no page": page.get(f"/{word}"),
            "no study": page.get("/studies/99999", params={"q": word}),
        }
        page.headers["x-csrf-token"] = _hidden(page, "/account", "csrf")
        answers |= {
            "no image": page.post("/try", files={"file": ("x.dcm", word.encode() * 100)}),
            "broken image": page.post("/try", files={"file": (f"{word}.dcm", as_bytes(broken))}),
        }
    bearer = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{url}/api/v1", timeout=60, headers=bearer) as api:
        answers |= {
            "api, no number": api.get(f"/studies/{word}"),
            "api, no JSON": api.post("/studies/1/priority", content=word.encode()),
            "api, no priority": api.post("/studies/1/priority", json={"priority": word}),
            "api, no field": api.post("/studies/1/hold", json={word: word}),
            "api, no query": api.get("/worklist", params={"limit": word}),
        }
        run.texts["metrics"] = httpx.get(f"{url}/metrics").content
        run.texts["openapi"] = api.get("/openapi.json").content
    for name, answer in answers.items():
        assert 400 <= answer.status_code < 500, (name, answer.status_code)
        run.texts[f"error page: {name}"] = answer.content + str(answer.headers).encode()


def _hidden(page: httpx.Client, path: str, name: str) -> str:
    """The value of a hidden field of a form."""
    found = re.search(rf'name="{name}" value="([^"]+)"', page.get(path).text)
    assert found is not None
    return found[1]


def _command(config: Path, *arguments: str) -> bytes:
    command = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(config), *arguments]
    return subprocess.run(command, capture_output=True, check=False).stdout


def _processes(node: Pleura, run: Run) -> None:
    """What ``ps`` shows of each process, with its environment; and whether it may leave a core file."""
    assert node.process is not None
    for process in [node.process.pid, *descendants(node.process.pid)]:
        try:
            proc = Path(f"/proc/{process}")
            run.texts[f"process {process}"] = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
            limit = re.search(r"Max core file size +(\S+)", (proc / "limits").read_text())
        except OSError:
            continue
        assert limit is not None
        run.core_limits.add(limit[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole node's life."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "tmp").mkdir()
    made = Run(folder)
    ports = {name: free_port() for name in ("listener", "admin", "hl7", "pacs", "full", "down")}
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    with (
        web() as hook,
        mail() as post,
        _peer(ports["pacs"], 0x0000, made.sent),
        _peer(ports["full"], 0xC123, made.sent),
        _repository(made.audit) as ports["audit"],
    ):
        config = _configure(folder, ports, hook, post)
        node = Pleura(folder, ports["listener"], config, {"TMPDIR": str(folder / "tmp")})
        node.start()
        try:
            _live(node, ports, made, lambda: hook.requests and post.envelopes)
            made.webhook = [one.body + repr(one.headers).encode() for one in hook.requests]
            made.mails = [content_of(one) for one in post.envelopes]
            for words in (("doctor",), ("problems",), ("config",), ("audit", "verify")):
                made.texts[f"pleura {' '.join(words)}"] = _command(config, *words)
            _processes(node, made)
            made.texts["broker"] = broker_content(folder)
        finally:
            node.stop()
    made.texts["log"] = node.log_file.read_bytes()
    return made


def _live(node: Pleura, ports: dict[str, int], made: Run, notified: Callable[[], Any]) -> None:
    """All that happens to the node."""
    add = (sys.executable, "-P", "-m", "node.cli.main", "--config", str(node.config), "user", "add", "ada")
    subprocess.run([*add, "--role", "admin"], input=PASSWORD, text=True, check=True)
    token = _command(node.config, "user", "token", "test", "--role", "admin").decode().strip()
    assert _store(ports["listener"], [patient_values.radiograph()]) == [0]
    assert _store(ports["listener"], [patient_values.radiograph()], "STRANGER") == []
    assert -1 not in _store(ports["listener"], list(patient_values.odd_radiographs())[:5])
    for odd in list(patient_values.odd_radiographs())[5:]:
        _store(ports["listener"], [odd])
    same = patient_values.radiograph()
    other = patient_values.radiograph()
    other.SOPInstanceUID, other.PatientID = same.SOPInstanceUID, "KZQ-7741903-B"
    assert _store(ports["listener"], [same, other])[0] == 0
    wait_until(lambda: made.sent and notified(), "results and notifications", 120, alive=node.check_alive)
    _hl7(ports["hl7"], made)
    _pages(ports["admin"], token, made)
    problems, bearer = f"http://127.0.0.1:{ports['admin']}/api/v1/problems", {"Authorization": f"Bearer {token}"}
    wait_until(lambda: httpx.get(problems, headers=bearer).json()["problems"], "what fails", 60, alive=node.check_alive)


def broker_content(folder: Path) -> bytes:
    """Everything that the node's own broker holds."""
    import redis

    (sock,) = (
        (folder / "store").glob("*.sock")
        if list((folder / "store").glob("*.sock"))
        else (folder / "tmp").rglob("*.sock")
    )
    broker = redis.Redis(unix_socket_path=str(sock))
    return b"\n".join(key + b" " + (broker.dump(key) or b"") for key in broker.scan_iter())


@pytest.mark.campaign
def test_nothing_that_was_written_names_the_patient(run: Run) -> None:
    happened = (b"rejected", b"C-STORE of", b"was not accepted", b"has failed", b"notification 1", b"conflict")
    assert [one for one in happened if one not in run.texts["log"]] == []
    # The page of an uploaded file says what the file describes itself as, odd codes too, and that alone.
    meant = {"error page: broken image": (DESCRIPTION,)}
    found = {name: found_in(content, but=meant.get(name, ())) for name, content in run.texts.items()}
    assert {name: kinds for name, kinds in found.items() if kinds} == {}


@pytest.mark.campaign
def test_no_file_names_the_patient_but_database_store_and_results(run: Run) -> None:
    meant = ("instances", "results", "spool", "pleura.sqlite", "set-aside")
    assert found_below(run.folder / "store", without=meant) == {}
    assert found_below(run.folder / "tmp") == {}
    assert found_below(run.folder, without=("store",)) == {}
    assert found_in((run.folder / "store" / "pleura.sqlite").read_bytes()), "the search would find it"


@pytest.mark.campaign
def test_notifications_and_audit_messages_name_what_they_may(run: Run) -> None:
    assert any(ID in found_in(body) for body in run.webhook), "the patient ID is what it is for"
    assert [kinds for body in run.webhook if (kinds := found_in(body, but=(ID, ACCESSION, DESCRIPTION)))] == []
    assert [kinds for body in run.mails if (kinds := found_in(body, but=(ACCESSION, DESCRIPTION)))] == []
    assert any(ID in found_in(one) for one in run.audit)
    assert [kinds for one in run.audit if (kinds := found_in(one, but=(ID,)))] == []


@pytest.mark.campaign
def test_results_name_the_patient(run: Run) -> None:
    """The objects in the PACS are of the patient: the words are really in what the node works with."""
    assert all({"name", "patient ID"} <= set(found_in(one)) for one in run.sent)


@pytest.mark.campaign
def test_no_process_leaves_its_memory_behind(run: Run) -> None:
    assert run.core_limits == {"0"}
