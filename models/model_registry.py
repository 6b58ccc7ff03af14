"""Name to ModelSpec: the bundled models and a site's own folder, read without loading any network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from models.manifest import ManifestError, read_manifest, verify_digest
from models.model_spec import ModelSpec

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the networks that come with Pleura, each with its manifest."""


class UnknownModel(LookupError):  # noqa: N818 - reads as a sentence where it is caught
    """A name in the configuration that no manifest has; the message lists the names there are."""


@dataclass(frozen=True, slots=True)
class Registry:
    """Every model that this node could run, by name, in the order of their manifests' file names."""

    specs: tuple[ModelSpec, ...]

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models."""
        return tuple(spec.name for spec in self.specs)

    def find(self, name: str) -> ModelSpec:
        """The model of that name.

        Raises:
            UnknownModel: No manifest has it.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        [meant] = get_close_matches(name, self.names, n=1) or [""]
        hint = f"did you mean '{meant}'?" if meant else f"the manifests name: {', '.join(self.names) or 'none'}"
        raise UnknownModel(f"there is no model '{name}'; {hint}")

    def active(self, names: Iterable[str]) -> tuple[ModelSpec, ...]:
        """The models of these names in that order, each once.

        Raises:
            UnknownModel: A name is in no manifest.
        """
        return tuple(self.find(name) for name in dict.fromkeys(names))


def read_registry(folder: Path | None = None, *, bundled: Path = BUNDLED, verify: bool = True) -> Registry:
    """Read the bundled manifests and those in a site's ``folder``; ``verify`` compares each file with its digest.

    Raises:
        ManifestError: A manifest is wrong, two have the same name, the folder is missing, or a digest differs.
    """
    folders = [bundled] if folder is None else [bundled, folder]
    specs = tuple(read_manifest(path) for path in _manifests(folders))
    for number, spec in enumerate(specs):
        for earlier in specs[:number]:
            if earlier.name == spec.name:
                raise ManifestError(f"two manifests are called '{spec.name}': beside {earlier.file} and {spec.file}")
        if verify:
            verify_digest(spec)
    return Registry(specs)


def _manifests(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise ManifestError(f"{folder}: there is no such folder of models")
        yield from sorted(folder.glob("*.toml"))
