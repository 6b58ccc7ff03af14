"""A site's own folder of models: adds and removes models atomically."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from config.file import read_toml
from models.manifest import ManifestError, file_digest, files_of, parse_manifest, read_manifest
from models.model_registry import BUNDLED, read_registry
from models.model_spec import ModelSpec

Check = Callable[[ModelSpec], ModelSpec]
"""Looks a model over while it lies in a folder of its own; may put further files there, and raises what is wrong."""


class ModelStoreError(ValueError):
    """A model cannot be added or removed; the message says why and what to do."""


def add_model(
    folder: Path, manifest: Path, network: Path | None, check: Check, write: Callable[[ModelSpec], str]
) -> ModelSpec:
    """Copy a model with all that its manifest names into ``folder``, once ``check`` has found nothing against it.

    ``network`` is the network's file or folder where it does not lie beside the manifest. Everything is gathered in a
    folder beside the others first, and the manifest, which makes it a model, is moved last. ``write`` turns the checked
    ModelSpec into a manifest's text; the file as it was given is kept where nothing was added to it.

    Raises:
        ModelStoreError: there is a model of that name.
        ManifestError: the manifest is wrong or the network has another digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=folder) as gathered:
        spec = _gather(manifest, network, Path(gathered))
        shelved = read_registry(folder, verify=False)
        if spec.name in shelved.names:
            raise ModelStoreError(
                f"there is a model '{spec.name}' already; remove it first, or give this one another name"
            )
        checked = check(spec)
        files = files_of(checked)
        taken = {folder / file.name for file in files} & {file for known in shelved for file in files_of(known)}
        if taken:
            names = ", ".join(sorted(file.name for file in taken))
            raise ModelStoreError(
                f"another model's files are called {names}; rename the new ones and change the manifest"
            )
        text = manifest.read_text(encoding="utf-8") if checked == spec else write(checked)
        for file in files:
            file.replace(folder / file.name)
        partial = Path(gathered) / "manifest"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / f"{spec.name}.toml")
    return read_manifest(folder / f"{spec.name}.toml")


def _gather(manifest: Path, network: Path | None, into: Path) -> ModelSpec:
    spec = read_manifest(manifest) if network is None else _beside(manifest, network)
    for file in files_of(spec):
        source = network if network is not None and file == spec.file else file
        if source.is_dir():
            shutil.copytree(source, into / file.name)
        else:
            shutil.copyfile(source, into / file.name)
    copied = into / f"{spec.name}.toml"
    shutil.copyfile(manifest, copied)
    return read_manifest(copied)


def _beside(manifest: Path, network: Path) -> ModelSpec:
    """The model of a manifest whose network lies elsewhere; the name in the manifest must be the file's."""
    spec = parse_manifest(read_toml(manifest, ManifestError), manifest)
    if spec.file.name != network.name:
        raise ManifestError(f"{manifest}: names the file {spec.file.name}, not {network.name}")
    found = file_digest(network)
    if found != spec.digest:
        raise ManifestError(f"{spec.name}: {network} has the digest {found}, its manifest says {spec.digest}")
    return spec


def remove_model(folder: Path | None, name: str, in_use: tuple[str, ...]) -> tuple[Path, ...]:
    """Delete a site's own model: its manifest first, so that there is never a model without its file.

    Raises:
        ModelStoreError: it is bundled, or the configuration runs it.
        UnknownModel: there is no such model.
    """
    spec = read_registry(folder, verify=False).find(name)
    if spec.file.parent == BUNDLED:
        raise ModelStoreError(f"'{name}' is bundled with Pleura; leave it out of the configuration instead")
    if name in in_use:
        raise ModelStoreError(f"the configuration runs '{name}'; take it out of [models] and restart the node first")
    manifests = [path for path in spec.file.parent.glob("*.toml") if read_manifest(path).name == name]
    gone = (*manifests, *files_of(spec))
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return gone
