"""Dockerfile, Compose file and locked versions: right by their own rules, and true to the code.

tests/containers builds and runs them on a Docker engine, and their commands without one.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import tomllib
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from config.reference import keys
from config.settings import load
from node.cli.main import COMMANDS
from tests.bills import faults_of_bill

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("pleura:")}
BUILT = {name: service for name, service in OURS.items() if "build" in service}
PROFILES = ("demo", "hl7", "dicomweb", "gpu")
LOCKED = re.compile(r"(?P<name>[a-z0-9._-]+)==(?P<version>\S+)(?P<digests>( --hash=sha256:[0-9a-f]{64})+)")
# What a lock for Linux, x86-64 and the Dockerfile's Python is asked about.
MACHINE = {
    "platform_system": "Linux",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "implementation_name": "cpython",
    "extra": "",
}


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def _stages() -> dict[str, list[tuple[str, str]]]:
    stages: dict[str, list[tuple[str, str]]] = {"": []}  # what stands before the first FROM
    name = ""
    for word, rest in _instructions():
        if word == "FROM":
            name = rest.split(" AS ")[1]
            stages[name] = []
        stages[name].append((word, rest))
    return stages


@pytest.mark.peer("docker-compose")
def test_compose_understands_the_file() -> None:
    profiles = [word for name in PROFILES for word in ("--profile", name)]
    environment = {**os.environ, "PLEURA_DB_PASSWORD": "x"}
    done = subprocess.run(
        ["docker-compose", *profiles, "config"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    output = yaml.safe_load(done.stdout)["services"]
    assert set(output) == set(COMPOSE["services"])
    environment.pop("PLEURA_DB_PASSWORD")
    without = subprocess.run(
        ["docker-compose", "config"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert without.returncode != 0
    assert "set PLEURA_DB_PASSWORD" in without.stderr


@pytest.mark.parametrize("name", OURS)
def test_each_service_runs_a_command_of_ours_with_settings_that_exist(name: str) -> None:
    service = OURS[name]
    assert service["command"][0] in COMMANDS
    variables = {key.variable for key in keys()} | {"PLEURA_CONFIG"}
    assert set(service["environment"]) <= variables
    assert {"db", "broker"} <= set(service["depends_on"])


def test_each_image_is_built_once_and_never_looked_for_in_a_registry() -> None:
    """Services that share an image would each build it. Compose pulls before it builds, unless it is told not to."""
    assert Counter(service["image"] for service in BUILT.values()) == Counter({one["image"] for one in OURS.values()})
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}
    for service in BUILT.values():
        assert service["build"]["target"] in _stages()


@pytest.mark.parametrize("name", BUILT)
def test_the_base_image_can_be_pinned_and_is_the_dockerfiles_else(name: str) -> None:
    (base,) = [rest.removeprefix("BASE=") for word, rest in _stages()[""] if word == "ARG"]
    assert BUILT[name]["build"]["args"] == {"BASE": f"${{PLEURA_BASE:-{base}}}"}


def test_nothing_is_published_but_what_must_be_reached() -> None:
    published = {
        name: [port.rsplit(":", 1)[1] for port in service["ports"]]
        for name, service in OURS.items()
        if "ports" in service
    }
    assert published == {"listener": ["11112"], "admin": ["8080"], "hl7": ["2575"], "dicomweb": ["8043"]}
    for name in ("admin", "dicomweb"):
        assert all(port.startswith("127.0.0.1:") for port in OURS[name]["ports"]), "people and tokens come by HTTPS"
    assert "ports" not in COMPOSE["services"]["db"]
    assert "ports" not in COMPOSE["services"]["broker"]


def test_no_log_fills_the_disk() -> None:
    for name, service in COMPOSE["services"].items():
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name


def test_the_files_that_are_mounted_are_there() -> None:
    settings = load(ROOT / "config" / "demo" / "pleura.toml")
    (destination,) = settings.destinations
    orthanc = COMPOSE["services"]["orthanc"]
    assert destination.host in COMPOSE["services"]
    assert f"127.0.0.1:{destination.port}:{destination.port}" in orthanc["ports"]
    for volume in orthanc["volumes"]:
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).is_file()


def test_the_image_runs_as_nobody_special_and_tells_its_health() -> None:
    stages = _stages()
    assert list(stages)[-1] == "cpu"
    words = [word for word, _ in stages["base"]]
    (user,) = [rest for word, rest in stages["base"] if word == "USER"]
    assert user not in ("root", "0")
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "HEALTHCHECK" in words
    for target in ("cpu", "gpu"):
        assert stages[target][0][1].startswith("base ")
        assert "USER" not in [word for word, _ in stages[target]]


def test_what_is_copied_is_there_and_every_room_is_copied() -> None:
    sources = [rest.split()[0] for word, rest in _instructions() if word == "COPY" and not rest.startswith("--from")]
    several = [rest for word, rest in _instructions() if word == "COPY" and rest.startswith("pyproject")]
    sources += several[0].split()[:-1]
    assert all((ROOT / source).exists() for source in sources)
    assert {"config", "db", "models", "workers", "node"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not set(sources) & set(ignored)


def test_every_package_of_an_image_has_its_version_and_digest() -> None:
    for target in ("cpu", "gpu"):
        installs = [rest for word, rest in _stages()[f"installed-{target}"] if word == "RUN"]
        assert "--require-hashes -r /locked.txt" in installs[0]
        assert all("--no-deps" in line for line in installs)


def _bill(target: str) -> dict[str, Any]:
    bill: dict[str, Any] = json.loads((ROOT / "config" / "locked" / f"{target}.cdx.json").read_text(encoding="utf-8"))
    return bill


def _locked(line: str) -> tuple[str, str, frozenset[str]]:
    """Name, version and digests of a locked package."""
    match = LOCKED.fullmatch(line)
    assert match is not None, line
    digests = frozenset(re.findall(r"[0-9a-f]{64}", match["digests"]))
    return canonicalize_name(match["name"]), match["version"], digests


@pytest.mark.parametrize("target", ["build", "cpu"])
def test_a_package_with_machine_code_is_locked_for_each_machine(target: str) -> None:
    """x86-64 and arm64: what is installed here says whether a package has machine code."""
    head, *lines = (ROOT / "config" / "locked" / f"{target}.txt").read_text(encoding="utf-8").splitlines()
    assert head.endswith("on Linux, x86_64 and aarch64. Do not edit.")
    digests = {name: found for name, _, found in map(_locked, lines)}
    installed: dict[str, str] = {
        canonicalize_name(each.name): each.read_text("WHEEL") or "" for each in distributions()
    }
    compiled = {name for name in digests if re.search(r"^Tag: .*linux", installed.get(name, ""), re.MULTILINE)}
    assert target == "build" or {"numpy", "onnxruntime", "imagecodecs"} <= compiled
    assert {name for name in compiled if len(digests[name]) < 2} == set()


@pytest.mark.parametrize("target", ["build", "cpu", "gpu"])
def test_the_bill_of_materials_is_true_to_the_lock(target: str) -> None:
    bill = _bill(target)
    assert faults_of_bill(bill) == ""
    lines = (ROOT / "config" / "locked" / f"{target}.txt").read_text(encoding="utf-8").splitlines()[1:]
    packages = [each for each in bill["components"] if each.get("purl", "").startswith("pkg:pypi/")]
    found = {(each["name"], each["version"], frozenset(one["content"] for one in each["hashes"])) for each in packages}
    locked = {_locked(line) for line in lines}
    assert locked == found, "run .ci/sbom"
    assert [each["name"] for each in bill["components"] if not each.get("licenses")] == []
    needed = {other for one in bill["dependencies"] for other in one.get("dependsOn", ())}
    assert {each["bom-ref"] for each in bill["components"]} == needed


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_bill_of_materials_has_the_bundled_networks(target: str) -> None:
    found = {
        each["name"]: each["hashes"][0]["content"] for each in _bill(target)["components"] if each["type"] != "library"
    }
    manifests = [tomllib.loads(path.read_text()) for path in (ROOT / "models" / "bundled").glob("*.toml")]
    assert found == {each["model"]["name"]: each["model"]["digest"] for each in manifests}


def test_the_bill_of_an_image_has_the_packages_of_its_system_too(tmp_path: Path) -> None:
    release = 'ID=debian\nVERSION_ID="12"\n'
    status = (
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u8\n"
        "Description: C\n more\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    script = runpy.run_path(str(ROOT / ".ci" / "image-sbom"))
    bill = script["with_system"](_bill("cpu"), release, status)
    assert faults_of_bill(bill) == ""
    added = [each for each in bill["components"] if "debian" in each["bom-ref"]]
    assert [(each["name"], each["version"]) for each in added] == [("debian", "12"), ("libc6", "2.36-9+deb12u8")]
    assert bill["metadata"]["component"]["type"] == "container"


@pytest.mark.parametrize(
    ("package", "found", "known", "unknown"),
    [
        ({"name": "a", "version": "1", "vulns": []}, [], 1, 0),
        ({"name": "a", "skip_reason": "not found"}, [], 0, 1),
        (
            {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]},
            ["a 1: CVE-1, mended in 2"],
            1,
            0,
        ),
    ],
)
def test_an_audit_without_a_database_is_no_clean_one(
    package: dict[str, Any], found: list[str], known: int, unknown: int
) -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "audit"))
    assert script["verdict"](json.dumps({"dependencies": [package]})) == (found, known, unknown)


def test_the_labels_of_the_image_are_true() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (label,) = [rest for word, rest in _stages()["base"] if word == "LABEL"]
    assert f"org.opencontainers.image.version={project['version']} " in label
    assert f"org.opencontainers.image.licenses={project['license']}" in label


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_lock_holds_what_the_project_needs(target: str) -> None:
    lines = (ROOT / "config" / "locked" / f"{target}.txt").read_text(encoding="utf-8").splitlines()[1:]
    matches = [LOCKED.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    locked = {canonicalize_name(match["name"]): match["version"] for match in matches if match}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    more = extras["gpu"] if target == "gpu" else []
    for line in (*project["dependencies"], *extras["reports"], *more):
        need = Requirement(line)
        if need.marker and not need.marker.evaluate(MACHINE):
            continue
        # The build with CUDA takes the place of the other; both together would overwrite each other's files.
        name = "onnxruntime-gpu" if (target, need.name) == ("gpu", "onnxruntime") else need.name
        version = locked.get(canonicalize_name(name))
        assert version is not None, f"{line} is not locked: run .ci/lock"
        assert need.specifier.contains(version), f"{name} is locked at {version}, needed is {line}: run .ci/lock"


def test_an_image_has_one_build_of_onnx_runtime() -> None:
    for target, other in (("cpu", "onnxruntime-gpu"), ("gpu", "onnxruntime")):
        lines = (ROOT / "config" / "locked" / f"{target}.txt").read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(f"{other}==")]
