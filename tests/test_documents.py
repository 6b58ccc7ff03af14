"""README.md and docs/ name only what is there: files, settings, commands with their options, make targets, links."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml
from pydantic import ValidationError

from config.environment import misspelt
from config.reference import keys
from config.settings import Settings
from db.audit_events import MEANINGS
from node.cli import reference
from node.cli.main import cli
from tests.node.monitoring.test_certificates import FAULTS as CERTIFICATE_FAULTS
from tests.node.monitoring.test_doctor import FAULTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
SITE = PAGES[2:]
WITH_CHANGES = [*PAGES, ROOT / "CHANGELOG.md"]
FOLDERS = ("node", "workers", "models", "db", "config", "docs", "tests", "benchmarks", "deploy")
IGNORED = {".venv", "node_modules", ".git", "demo", "artifacts"}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _code(page: Path) -> Iterator[str]:
    """Every code span of a page, and every line of its code blocks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@cache
def _files() -> frozenset[str]:
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if not IGNORED & set(path.parts))
    return frozenset(path.name for path in found)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_are_there(page: Path) -> None:
    wrong = []
    for span in _code(page):
        for path in re.findall(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./*-]+)", span):
            pattern = path.rstrip("./")
            if "NAME" not in pattern and not list(ROOT.glob(pattern)):
                wrong.append(path)
        wrong += [name for name in re.findall(r"(?<![\w./*-])(\w+\.py)(?!\w)", span) if name not in _files()]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_functions_that_are_named_with_their_file_are_in_it(page: Path) -> None:
    """A page writes ``function`` in ``folder/file.py``, or ``folder/file.py: function``."""
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    pairs = [(path, names) for names, path in re.findall(r"((?:`\w+`(?: and )?)+) in `([\w/]+\.py)`", text)]
    pairs += re.findall(r"(?:\| `(?=[\w/.]+` \|)|`(?=[\w/.]+: ))([\w/]+\.py)(?:: |` \| `)(\w+)`", text)
    wrong = []
    for path, names in pairs:
        source = (ROOT / path).read_text(encoding="utf-8")
        wrong += [
            f"{name} in {path}"
            for name in re.findall(r"\w+", names.replace(" and ", " "))
            if not re.search(rf"^\s*(?:(?:async )?def|class) {name}\b|^{name}\b.* =", source, re.MULTILINE)
        ]
    assert wrong == []


@cache
def _settings() -> frozenset[str]:
    found = set()
    for key in keys():
        parts = key.name.replace("[]", "").split(".")
        found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_settings_that_are_named_exist(page: Path) -> None:
    wrong = []
    for span in _code(page):
        for name in re.findall(rf"^((?:{'|'.join(Settings.model_fields)})(?:\[\])?\.[a-z0-9_.\[\]-]+)", span):
            plain = name.replace("[]", "").rstrip(".")
            is_module = any((ROOT / f"{'/'.join(plain.split('.')[:size])}.py").exists() for size in range(2, 5))
            if plain.endswith(".py"):
                continue
            is_key = plain in _settings() or plain.startswith(("models.after.", "hl7.character_sets."))
            if not is_key and not is_module and plain not in _columns():
                wrong.append(name)
        for variable in re.findall(r"PLEURA_([A-Z0-9_]+__[A-Z0-9_]+)", span):
            if misspelt({f"PLEURA_{variable}": ""}, Settings, frozenset()) is not None:
                wrong.append(variable)
    assert wrong == []


def _columns() -> set[str]:
    """``table.column`` of the database, which pages write as they write settings."""
    from db import audit_tables, order_tables, user_tables
    from db.tables import Base

    assert None not in (audit_tables, order_tables, user_tables)
    return {f"{table.name}.{column.name}" for table in Base.metadata.sorted_tables for column in table.columns}


def _command(arguments: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``words`` name, and the words behind its name."""
    context = click.Context(cli)
    command: click.Command = cli
    for number, word in enumerate(arguments):
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            return command, arguments[number:]
        command = found
    return command, []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    wrong = []
    for span in _code(page):
        for line in re.findall(r"(?<![\w./@=:-])(?<!-u )pleura +([a-z-][^#|,`]*)", span):
            arguments = [word for word in line.split() if word != "…"]
            while arguments[:1] == ["--config"]:
                arguments = arguments[2:]
            command, rest = _command(arguments)
            options = {
                option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            if command is cli and rest[:1] and not rest[0].startswith("--"):
                wrong.append(line)
            wrong += [f"{line}: {word}" for word in rest if re.match(r"--[a-z]", word) and word not in options]
    assert [each for each in wrong if not each.startswith("--version")] == []


@pytest.mark.parametrize("page", WITH_CHANGES, ids=_name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for span in _code(page) for target in re.findall(r"^make ([a-z-]+)", span)}
    assert named <= targets


@cache
def _anchors(page: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("page", WITH_CHANGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in _anchors(aim)):
            wrong.append(target)
    assert wrong == []


def test_the_files_that_compose_mounts_are_named_as_paths() -> None:
    """Compose takes a source that begins with neither ``.`` nor ``/`` for the name of a volume, and refuses it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    named = re.findall(r"PLEURA_CONFIG=(\S+) docker", text)
    assert named
    assert [path for path in named if not path.startswith(("./", "/"))] == []


def test_each_action_of_the_audit_trail_is_explained() -> None:
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    assert [action for action in MEANINGS if f"`{action}`" not in text] == []


def test_the_list_of_ports_has_every_port_and_address_of_the_settings_with_its_default() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    named = {
        key.name: key.default for key in keys() if key.name.rpartition(".")[2] in ("host", "port", "tls_port", "url")
    }
    assert {"listener.port", "destinations[].host", "broker.url"} <= set(named)
    wrong = []
    for name, default in named.items():
        cells = [row.split("|") for row in rows if f"`{name}`" in row.split("|")[2]]
        # 0 stands for no default.
        port = default if name.endswith("port") and default.strip("`") not in ("", "0") else ""
        if not any(port in row[3] for row in cells):
            wrong.append(name)
    assert wrong == []


def test_the_image_publishes_the_ports_of_the_list() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    exposed = re.findall(r"^EXPOSE (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    listened = re.findall(r"^\| [^|]*\| `\w+\.host`, `\w+\.(?:tls_)?port` \| (\d+) ", text, re.MULTILINE)
    assert sorted(exposed[0].split()) == sorted(listened)


def _blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, those inside of lists without their indent."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_examples_of_a_configuration_can_be_used(page: Path) -> None:
    """A page shows parts of a configuration: every table that it shows must be valid as it stands."""
    for block in _blocks(page, "toml"):
        values = tomllib.loads(block)
        if set(values) <= set(Settings.model_fields):
            assert _mistakes(values) == [], block


def _with_secrets(value: object) -> object:
    if isinstance(value, list):
        return [_with_secrets(one) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) in ({"file"}, {"credential"}):
        return "a secret of thirty-two characters or more"
    return {key: _with_secrets(one) for key, one in value.items()}


def _mistakes(values: dict[str, object]) -> list[str]:
    """What is wrong with a part of a configuration; keys that it leaves out are not, and no secret's file is there."""
    try:
        Settings.model_validate(_with_secrets(values))
    except ValidationError as error:
        return [str(one) for one in error.errors() if not one["type"].startswith("missing")]
    return []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_examples_in_json_are_json(page: Path) -> None:
    for block in _blocks(page, "json"):
        json.loads(block)


@pytest.mark.parametrize("page", SITE, ids=_name)
def test_lists_and_tables_stand_after_an_empty_line(page: Path) -> None:
    """GitHub needs none; the site would run them into the paragraph before."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    paragraphs = (one for one in re.split(r"\n\s*\n", text) if not re.match(r" *([-*] |\d+\. |\||<)", one))
    assert [one for one in paragraphs if re.search(r"\n([-*] |\d+\. |\|)", one)] == []


@pytest.mark.parametrize("page", SITE, ids=_name)
def test_what_belongs_to_a_list_entry_is_indented_by_four(page: Path) -> None:
    """Three are enough for GitHub; the site would end the list there, and count from 1 again."""
    assert re.findall(r"^ {1,3}```.*$", page.read_text(encoding="utf-8"), re.MULTILINE) == []


@pytest.mark.parametrize("page", SITE, ids=_name)
def test_pages_link_to_pages_alone(page: Path) -> None:
    """The site has no file from outside of docs/: write its path in code instead."""
    assert re.findall(r"\]\((\.\./[^)]*)\)", page.read_text(encoding="utf-8")) == []


def test_every_page_is_in_the_navigation_once() -> None:
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entries: object) -> Iterator[str]:
        if isinstance(entries, str):
            yield entries
        elif isinstance(entries, list | dict):
            for one in entries if isinstance(entries, list) else entries.values():
                yield from pages(one)

    named = list(pages(yaml.safe_load(text)["nav"]))
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md")), "add new pages to mkdocs.yml"


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_page_of_commands_is_current() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference.page(), "`make reference` writes it"


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, (*path, name))


def test_every_command_and_option_says_what_it_is_for() -> None:
    """What stands behind an option has a word of its own, not the name of the function that converts it."""
    silent = [
        f"{path} {option.opts[0]}"
        for path, command in _commands(cli)
        for option in command.params
        if isinstance(option, click.Option)
        and not option.hidden
        and (not option.help or re.search("^_|%", option.make_metavar(click.Context(command))))
    ]
    assert silent + [path for path, command in _commands(cli) if not command.help] == []


def test_what_troubleshooting_quotes_of_the_doctor_is_what_the_doctor_says() -> None:
    """Each line *Doctor* quotes, in code, a sentence of the faults that tests/node/monitoring make."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- \*\*Doctor\*\*:(.*?)(?=^- |^#|\Z)", text, re.DOTALL | re.MULTILINE)
    quoted = [quote for line in lines for quote in re.findall(r"`([^`]+)`", " ".join(line.split()))]
    sentences = [sentence for _, _, sentence, _ in FAULTS.values()] + [one.found for one in CERTIFICATE_FAULTS.values()]
    assert len(quoted) >= 20
    assert [
        quote for quote in quoted if not any(quote in sentence for sentence in sentences) and quote != "callers"
    ] == []
