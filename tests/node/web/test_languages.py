"""The pages in another language: which one a request gets, and that its catalogue lacks nothing."""

from __future__ import annotations

import ast
import io
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from itertools import combinations
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from markupsafe import Markup
from pydantic import SecretStr

from config.listener import Listener
from config.listener import Peer as ListedPeer
from config.notifications import Notifications, Webhook
from config.servers import Broker
from config.settings import Models, Settings, Store
from db.audit_events import MEANINGS, REMOVED_ENTRIES
from db.model_states import ModelState
from db.queries.monitoring import DiscrepancyKind
from db.states import Analysis, DeliveryState, InstanceState, JobState, Priority, StudyState
from db.user_tables import Role, Verdict
from models.contract import Zone
from models.gate import NotAnalysedCode
from models.model_registry import read_registry
from node.dicom import association_policy
from node.dicom.association_policy import AssociationPolicy
from node.monitoring import broker_health, remedies
from node.monitoring.broker_health import check_broker
from node.monitoring.certificates import check_certificates
from node.monitoring.check import Check, with_effect
from node.monitoring.health import check_models, check_store
from node.monitoring.queue_health import UnservedQueue, check_queues
from node.web import languages
from node.web.formatting import NO_VALUE, Formatting, spaced_words
from node.web.languages import ENGLISH, LANGUAGES, Catalogue, catalogue_of, language_of, preferred
from node.web.stored_texts.patterns import PATTERNS
from tests.node.web.conftest import Site
from tests.node.web.template_texts import untranslated
from tests.ports import free_port
from workers import tls
from workers.laterality import BOTH, LEFT, RIGHT, UNKNOWN, place_text
from workers.results.result_kinds import LABELS

ROOT = Path(__file__).resolve().parents[3]
WEB = ROOT / "node" / "web"
TEMPLATES = sorted((WEB / "templates").glob("*.html"))
GERMAN = LANGUAGES["de"]
OTHERS = [language for language in LANGUAGES.values() if language is not ENGLISH]
NOT_TRANSLATED = {"explanation.html"}
"""A file that a command or a program makes, and no page."""
_DIGIT = "7"


# --- which language


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", ["de", "de", "en"]),
        ("en;q=0.5, de", ["de", "en"]),
        ("fr, *;q=0.1", ["fr", "*"]),
        ("de;q=0", []),
        ("de;q=9, ;;;, en", ["en"]),
        ("", []),
        ("x" * 100_000, []),
    ],
)
def test_what_a_browser_asks_for(header: str, tags: list[str]) -> None:
    assert preferred(header) == tags


def test_a_choice_comes_before_the_browser_and_the_browser_before_the_site() -> None:
    assert language_of("en", "de", "de") is ENGLISH
    assert language_of("", "de-AT,en;q=0.5", "en") is GERMAN
    assert language_of("", "fr", "de") is GERMAN
    assert language_of("xx", "", "en") is ENGLISH
    known = Settings.model_fields["site"].annotation.model_fields["language"].annotation  # type: ignore[union-attr]
    assert set(known.__args__) == set(LANGUAGES)


def test_the_page_is_in_the_language_of_the_browser_until_the_user_chooses_one(site: Site) -> None:
    client = site.logged_in("viewer")
    german = {"accept-language": "de-DE,de;q=0.9,en;q=0.8"}
    assert "<h1>Worklist</h1>" in client.get("/").text
    text = client.get("/", headers=german).text
    assert '<html lang="de">' in text
    assert "<h1>Arbeitsliste</h1>" in text
    assert "Lungenverschattung <small>rechtes Unterfeld</small><span>71 %</span>" in text
    assert "Nur für Forschungszwecke · kein Medizinprodukt" in text
    chosen = client.post("/account/preferences", data={"language": "en"}, headers={"referer": "http://node/?q=okafor"})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/?q=okafor")
    assert "<h1>Worklist</h1>" in client.get("/", headers=german).text
    assert "<h1>Worklist</h1>" in site.logged_in("viewer").get("/", headers=german).text, "remembered"
    assert "<h1>Arbeitsliste</h1>" in site.logged_in("admin").get("/", headers=german).text, "of this user alone"
    client.post("/account/preferences", data={"language": ""})
    assert "<h1>Arbeitsliste</h1>" in client.get("/", headers=german).text
    assert client.post("/account/preferences", data={"language": "xx"}).status_code == 400


def test_a_theme_is_remembered_and_is_on_error_pages_too(site: Site) -> None:
    client = site.logged_in("viewer")
    assert "data-theme" not in client.get("/").text, "the browser decides"
    client.post("/account/preferences", data={"theme": "light"})
    client.post("/account/preferences", data={"language": "de"})
    for path in ("/", "/users", "/studies/999"):
        assert '<html lang="de" data-theme="light">' in client.get(path).text, path
    assert "Dafür braucht es die Rolle Administration; Ihre Rolle ist Betrachter." in client.get("/users").text
    assert client.post("/account/preferences", data={"theme": "pink"}).status_code == 400


# --- times and numbers


def test_times_are_in_the_zone_of_the_site_and_utc_is_under_the_mouse() -> None:
    written, at = Formatting(GERMAN, ZoneInfo("Europe/Berlin")), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert written.moment(at) == Markup(
        '<time datetime="2026-03-29T01:30:00Z" title="29.03.2026 01:30:00 UTC">29.03.2026 03:30:00</time>'
    )
    assert ">03:30</time>" in written.clock(at)
    assert ">02:30</time>" in written.clock(datetime(2026, 3, 28, 1, 30, tzinfo=UTC)), "before the clocks changed"
    assert written.moment(None) == NO_VALUE
    assert 'title="29.03.2026 03:30:00 (01:30:00 UTC)">2 Tg. 1 h' in written.since(
        at, datetime(2026, 3, 31, 3, tzinfo=UTC)
    )
    assert written.age("20250330", datetime(2026, 3, 29, 23, tzinfo=UTC)) == "12 Mon.", "it is tomorrow there"


def test_numbers_are_written_as_the_language_does() -> None:
    english, german = Formatting(ENGLISH), Formatting(GERMAN)
    assert (english.percent(0.043), german.percent(0.043)) == ("4.3 %", "4,3 %")
    assert (english.size(1_500_000), german.size(1_500_000)) == ("1.5 MB", "1,5 MB")
    assert (english.area(1234, None), german.area(1234, None)) == ("12.3 cm²", "12,3 cm²")
    assert (english.seconds(1.25), german.figure(0.12345)) == ("1.2 s", "0,123")
    assert (english.day("20260131"), german.day("20260131"), german.day("31.1.")) == (
        "2026-01-31",
        "31.01.2026",
        "31.1.",
    )


def test_a_stored_text_has_days_as_the_language_writes_them_and_states_part_by_part() -> None:
    german = Formatting(GERMAN)
    assert german.stored("sent in later, the study is of 2026-01-31").endswith("vom 31.01.2026")
    assert german.stored("error of 2026-01-31") == "error of 2026-01-31", "what is not ours stays as it is"
    assert german.plain("urgent, not analysed") == "dringend, nicht analysiert"
    assert Formatting().plain("urgent, not analysed") == "urgent, not analysed"


# --- the catalogue


@cache
def _extracted() -> Catalog:
    """The texts of the source, as ``make translations`` finds them."""
    mappings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["babel"]["mappings"]
    methods = [(one["pattern"], one["method"]) for one in mappings]
    options = {one["pattern"]: {key: str(value) for key, value in one.items()} for one in mappings}
    keywords = {"_": None, "gettext": None, "ngettext": (1, 2), "gettext_noop": None}
    found = Catalog()
    for _, _, message, _, _ in extract_from_dir(WEB, methods, options, keywords):
        found.add(message)
    return found


def _po(language: languages.Language) -> Path:
    return languages.FOLDER / language.tag / "LC_MESSAGES" / "pleura.po"


@pytest.mark.parametrize("language", OTHERS, ids=lambda one: one.tag)
def test_every_text_is_translated_and_compiled(language: languages.Language) -> None:
    """``make translations`` adds what is missing here, but for the texts themselves."""
    with _po(language).open("rb") as file:
        catalogue = read_po(file)
    texts = {message.id: message for message in catalogue if message.id}
    wanted = {message.id for message in _extracted() if message.id}
    assert {text for text in wanted if text not in texts} == set(), "not in the catalogue"
    assert {text for text in texts if text not in wanted} == set(), "no longer in the source"
    for text, message in texts.items():
        given = message.string if isinstance(message.string, tuple) else (message.string,)
        assert all(given), f"no translation: {text}"
        assert not message.fuzzy, text
        for source, one in zip(text if isinstance(text, tuple) else (text,), given, strict=True):
            assert isinstance(source, str)
            assert isinstance(one, str)
            assert _places(one) == _places(source), text
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    assert _po(language).with_suffix(".mo").read_bytes() == compiled.getvalue(), "`make translations` compiles it"


def _places(text: str) -> set[str]:
    """What a text leaves open for values, and its tags."""
    return set(re.findall(r"%\(\w+\)s|%%|\{\w+\}|</?\w+>", text))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_shows_a_text_that_is_not_in_the_catalogue(template: Path) -> None:
    if template.name not in NOT_TRANSLATED:
        assert untranslated(template) == []


def test_scripts_show_no_text_of_their_own() -> None:
    """What a script says comes from the page, in data attributes."""
    for path in (WEB / "static").glob("*.js"):
        source = re.sub(r"^\s*//.*|//\s.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        texts = re.findall(r"""(?:textContent|title|innerText) = (["`][^"`]*[A-Za-z]{3,}[^"`]*["`])""", source)
        assert [text for text in texts if "${" not in text] == [], path.name


# --- texts of other rooms


def _kinds() -> Iterator[type[StrEnum]]:
    yield from (JobState, DeliveryState, StudyState, InstanceState, Priority, Analysis, Role, Verdict, ModelState)
    yield DiscrepancyKind


def _stored() -> Iterator[str]:
    """Words and sentences that other rooms write and a page shows."""
    for kind in _kinds():
        yield from (spaced_words(member.value) for member in kind)
    for spec in read_registry():
        if spec.kind.value not in ("gate", "lungs"):
            yield from (spaced_words(label.name) for label in spec.labels)
    for side in (LEFT, RIGHT, BOTH, UNKNOWN):
        for size in range(len(Zone) + 1):
            yield from filter(None, (place_text(side, zones) for zones in combinations(Zone, size)))
    yield from (*MEANINGS, REMOVED_ENTRIES, *LABELS.values())
    yield from ("finding 79", "audit trail", "own results", "of own results")  # what an entry of the trail is about
    yield from (advice for _, advice in remedies._REMEDIES)
    yield from (code.sentence for code in NotAnalysedCode)
    yield from _sentences_of("node/dicom/eligibility.py", "_reason")
    yield from _refusals()


def _refusals() -> Iterator[str]:
    """Why a caller may be refused, and what the page advises then."""
    rejections = [each for each in vars(association_policy).values() if isinstance(each, association_policy.Rejection)]
    ports = Listener(host="0.0.0.0", peers=(ListedPeer(ae_title="PACS", addresses=("10.0.0.1",)),))
    for policy in (AssociationPolicy(ports), AssociationPolicy(Listener())):
        for each in rejections:
            yield each.why
            for called in ("PLEURA", "WRONG"):
                yield policy.advice("PACS", called, "10.0.0.9", each.why).sentence
    for problem in (
        tls.NO_HANDSHAKE,
        tls.ENDED,
        tls.FILES,
        *tls._BY_VERIFICATION.values(),
        *dict(tls._BY_REASON).values(),
    ):
        yield from (problem.why, problem.remedy)


def _sentences_of(path: str, function: str) -> Iterator[str]:
    """The last argument of each call of a function of a module, a digit in place of each value."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function:
            text = node.args[-1]
            if isinstance(text, ast.Constant):
                yield str(text.value)
            elif isinstance(text, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else _DIGIT for part in text.values)


@pytest.mark.parametrize("language", OTHERS, ids=lambda one: one.tag)
def test_what_other_rooms_write_is_translated(language: languages.Language) -> None:
    same = {"job", "patient", "routine", "pneumothorax", "start", "Rejection note"}
    catalogue = catalogue_of(language)
    missing = [text for text in _stored() if catalogue.stored(text).lower() == text.lower() and text not in same]
    assert missing == []


def test_what_the_system_page_checks_is_translated(tmp_path: Path) -> None:
    full = Settings(store=Store(folder=tmp_path, minimum_free_bytes=10**18))
    checks = [*check_queues([UnservedQueue(name, 1, 700.0) for name in ("jobs", "jobs.gpu")]), check_store(full)]
    texts = [text for check in checks for text in (check.found, check.remedy)]
    shown = [catalogue_of(GERMAN).stored(text) for text in texts]
    assert [text for text, german in zip(texts, shown, strict=True) if text == german] == []
    assert shown[0] == "ein Job wartet seit 12 min: kein Worker arbeitet jobs ab (1 warten)"
    assert shown[1].startswith("starten Sie `pleura serve` oder `pleura worker --queue jobs`; ")
    assert "auf einem Rechner mit GPU" in shown[3]


def _untranslated(checks: Iterable[Check]) -> list[str]:
    """What a German system page would show of them in English."""
    shown = catalogue_of(GERMAN).stored
    return [
        text for check in checks for text in (check.found, check.remedy, check.effect) if text and shown(text) == text
    ]


def test_a_broker_that_cannot_be_used_is_told_in_german(tmp_path: Path) -> None:
    texts = [text for _, *each in broker_health._KNOWN for text in each]
    assert [text for text in texts if catalogue_of(GERMAN).stored(text) == text] == []
    without = Broker(server=tmp_path / "none")
    brokers = [without, Broker(url=f"redis://127.0.0.1:{free_port()}/0"), Broker(url="redis://h:port/0")]
    checks = [with_effect(check_broker(Settings(store=Store(folder=tmp_path), broker=one))) for one in brokers]
    assert not any(check.ok for check in checks)
    assert _untranslated(checks) == []
    assert catalogue_of(GERMAN).stored(checks[1].found).endswith(": dort lauscht nichts")


def test_models_and_certificates_that_cannot_be_used_are_told_in_german(tmp_path: Path) -> None:
    (tmp_path / "list.pem").write_text("nothing", encoding="utf-8")
    webhook = Webhook(enabled=True, url="https://his/", secret=SecretStr("x" * 32), ca_file=tmp_path / "list.pem")
    settings = Settings(models=Models(active=("chest-clasifier",)), notifications=Notifications(webhook=webhook))
    checks = [check_models(settings), *check_certificates(settings)]
    assert [check.ok for check in checks] == [False, False]
    assert _untranslated([checks[0], replace(checks[1], found="")]) == []


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("follows from lung opacity", "folgt aus: Lungenverschattung"),
        ("called AE title not recognized", "gerufener AE-Titel nicht bekannt"),
        ("called AE title ARCHIVE", "gerufener AE-Titel ARCHIVE"),
        (
            "Revision 2 replaces it: it must be removed there.",
            "Revision 2 ersetzt es: Es muss dort entfernt werden.",
        ),
        (
            "pneumothorax 94%; lung opacity 88%, known since the film of 2026-01-31",
            "Pneumothorax 94 %; Lungenverschattung 88 %, bekannt seit der Aufnahme vom 2026-01-31",
        ),
        (
            "STAT; no image could be analysed: Modality is CT; analysed are CR, DX",
            "STAT; kein Bild konnte analysiert werden: Die Modalität ist CT; analysiert werden CR, DX",
        ),
        ("the hospital's own priority is urgent", "die eigene Priorität des Krankenhauses ist dringend"),
        (
            "The hospital has corrected this patient (name, birth date): results carry what was known before.; and 3"
            " more: see the history",
            "Das Krankenhaus hat Angaben zur Person berichtigt (Name, Geburtsdatum): Die Ergebnisse nennen, was vorher"
            " bekannt war.; und 3 weitere: siehe Verlauf",
        ),
        ("name, something else", "name, something else"),
        ("connection refused: nobody listens", "connection refused: nobody listens"),
        ("", ""),
        ("{finding} {number}%", "{finding} {number} %"),
    ],
)
def test_a_stored_text_is_translated_by_its_parts(stored: str, shown: str) -> None:
    assert catalogue_of(GERMAN).stored(stored) == shown
    assert catalogue_of(ENGLISH).stored(stored) == stored


def test_no_pattern_takes_long_for_what_a_peer_writes() -> None:
    catalogue: Catalogue = catalogue_of(GERMAN)
    assert len(PATTERNS) > 20
    for evil in (
        "no chest radiograph: " * 28,
        "Modality is ; analysed are " * 20,
        "1 image not analysed: " * 25,
        "; " * 290,
    ):
        assert catalogue.stored(evil)
    assert catalogue.stored("x" * 1_000_000) == "x" * 1_000_000
