"""``pleura models``: list, show, verify, describe, add, combine, remove and switch models."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from pydantic import ValidationError
from rich.table import Table

from config.file import mistakes
from config.settings import Models, Settings
from db.engine import connect, schema_problem
from db.errors import DatabaseError
from db.model_states import ModelState, Switch, latest_switches, set_model_state
from models.endpoint import EndpointProtocol, EndpointSpec
from models.examination import Examination, examine
from models.manifest import ManifestError, left_open, manifest_text
from models.model_registry import BUNDLED, Registry, UnknownModel, read_registry
from models.model_spec import Mode, ModelKind, ModelSpec
from models.model_store import ModelStoreError, add_model, remove_model
from models.new_manifest import look_at, look_at_server, new_findings_manifest, new_manifest
from models.reference import manifest_table, recipe_table
from models.remote.findings_server import describe
from models.runtime.executor import ModelLoadError, ModelOutputError, ModelUnavailableError
from node.cli.common import console, fail, import_keras, json_option, print_json, settings_of
from node.cli.worklist import actor, open_engine

_UNUSABLE = (ManifestError, ModelLoadError, ModelOutputError, ModelUnavailableError)
"""Why a model cannot be used."""


@contextmanager
def _fail_on_model_error() -> Iterator[None]:
    """Report an error of a model in one sentence, with exit status 1."""
    try:
        yield
    except (*_UNUSABLE, ModelStoreError, UnknownModel, DatabaseError) as error:
        fail(str(error))


@click.group()
def models() -> None:
    """List, add, verify, switch and remove models. Research use only: not a medical device."""


@models.command("list")
@json_option
@click.pass_context
def list_models(context: click.Context, as_json: bool) -> None:
    """Print every model of this node with its state."""
    settings = settings_of(context)
    with _fail_on_model_error():
        registry = read_registry(settings.models.folder, verify=False)
        switches = _switches(settings)
    if as_json:
        print_json([{"state": _state(spec, settings.models, switches), **asdict(spec)} for spec in registry])
        return
    table = Table("model", "version", "kind", "state", "labels", "where", "digest", box=None, pad_edge=False)
    for spec in registry:
        where = "bundled" if spec.file.parent == BUNDLED else str(spec.file.parent)
        reported = sum(label.mode is Mode.ACTIVE for label in spec.labels)
        labels = f"{len(spec.labels)}, {reported} reported" if spec.gate is None else f"{len(spec.labels)} classes"
        state = _state(spec, settings.models, switches)
        table.add_row(spec.name, spec.version, spec.kind.value, state, labels, where, spec.digest[:12])
    console.print(table)


def _switches(settings: Settings) -> dict[str, Switch]:
    """State changes of models; none if this node has no database yet."""
    engine = connect(settings.database_url)
    return {} if schema_problem(engine) else latest_switches(engine)


def _state(spec: ModelSpec, configured: Models, switches: dict[str, Switch]) -> str:
    if spec.name == configured.gate:
        return "gate"
    if spec.name == configured.lungs:
        return "lungs"
    if spec.name not in (*configured.active, *configured.shadow):
        return "not configured"
    usual = ModelState.SHADOW if spec.mode is Mode.SHADOW or spec.name in configured.shadow else ModelState.ACTIVE
    switched = switches.get(spec.name)
    return f"{switched.state.value} (by {switched.actor})" if switched else usual.value


@models.command()
@click.argument("name")
@json_option
@click.pass_context
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Print the manifest of the model NAME and its model card."""
    settings = settings_of(context)
    with _fail_on_model_error():
        spec = read_registry(settings.models.folder, verify=False).find(name)
    if as_json:
        print_json(spec)
        return
    for key, value in _facts(spec):
        console.print(f"{key:<12} {value}", soft_wrap=True, markup=False)
    table = Table("label", "code", "cut-off", "place", "mode", "evidence", box=None, pad_edge=False)
    for label in spec.labels:
        seen = label.evidence
        behind = (
            f"AUC {seen.auc:.3f} ({seen.auc_low:.3f} to {seen.auc_high:.3f}), {seen.positives} positives"
            if seen
            else ""
        )
        code = f"{label.code.value} {label.code.scheme}"
        place = "yes" if label.localised else ""
        mode = f"{label.mode.value}, replaces {label.replaces}" if label.replaces else label.mode.value
        table.add_row(label.name, code, f"{label.threshold:.3f}", place, mode, behind)
    console.print(table)
    if spec.card is not None:
        console.print(spec.card.read_text(encoding="utf-8"), soft_wrap=True, markup=False)


def _facts(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    given = spec.input
    yield "model", f"{spec.name} {spec.version}: {spec.title}"
    yield "kind", f"{spec.kind.value}, {spec.activation.value}, {spec.mode.value}"
    if spec.endpoint is None:
        yield "file", f"{spec.file} ({_bytes(spec.file) / 1e6:.1f} MB)"
    else:
        version = f" {spec.endpoint.version}" if spec.endpoint.version else ""
        yield "runs on", f"{spec.endpoint.url} ({spec.endpoint.protocol.value}) as {spec.endpoint.model}{version}"
    yield "digest", spec.digest
    if spec.onnx is not None:
        yield "for CPUs", f"{spec.onnx} {spec.onnx_digest}"
    if spec.keras is not None:
        yield "for Keras", f"{spec.keras} {spec.keras_digest}"
    yield "device UID", spec.device_uid
    if spec.kind is ModelKind.FINDINGS:
        return
    low, high = given.value_range
    yield "input", f"{given.height} x {given.width} x {given.channels}, {given.layout}, {low:g} to {high:g}"
    yield (
        "prepared",
        f"fit {given.fit.value}, equalise {given.equalise}, mean {_listed(given.mean)}, std {_listed(given.std)}",
    )
    if others := [name for name in spec.columns if name not in {label.name for label in spec.labels}]:
        yield "no findings", ", ".join(others)
    if spec.kind is ModelKind.SEGMENTER:
        yield "probability", f"{spec.pooling.method.value} of its map (share {spec.pooling.share:g})"


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@models.command()
@click.argument("names", nargs=-1)
@json_option
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Check digest, input and outputs of the models NAMES; without names, of all.

    Each model is loaded and run on synthetic images, singly and as a batch. One that has a file for ONNX Runtime
    and one for TensorFlow is run with both, where TensorFlow is installed: they may differ by 0.001. Exit status 1 if
    one cannot be used.
    """
    settings = settings_of(context)
    wrong, usable = 0, []
    with _fail_on_model_error():
        registry = read_registry(settings.models.folder, verify=False)
        chosen = registry.active(names) if names else registry.specs
    for spec in chosen:
        try:
            usable.append(done := _examined(spec))
            if not as_json:
                _print_examination(done)
        except _UNUSABLE as error:
            wrong += 1
            click.echo(f"pleura: {error}", err=True)
    if as_json:
        named = ({"model": done.spec.name, "version": done.spec.version, **asdict(done)} for done in usable)
        print_json([{key: value for key, value in one.items() if key != "spec"} for one in named])
    if wrong:
        fail(f"{wrong} of {len(chosen)} models cannot be used")


def _import_needed(file: Path) -> None:
    if file.suffix != ".onnx":
        import_keras()


def _examined(spec: ModelSpec) -> Examination:
    if spec.endpoint is None:
        _import_needed(spec.keras or spec.onnx or spec.file)
    with console.status(f"{spec.name}: loading and running on synthetic images"):
        return examine(spec, time.perf_counter)


def _print_examination(done: Examination) -> None:
    ranges = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in done.ranges.items())
    spec = done.spec
    console.print(f"{spec.name} {spec.version}: usable, {1000 * done.seconds:.0f} ms an image ({ranges})")
    if done.apart is not None:
        console.print(f"  TensorFlow and ONNX Runtime differ by {done.apart:.1e} at most")


@models.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--server", default="", help="URL of an inference server, in the place of FILE.")
@click.option("--model", default="", help="Name of the model there.")
@click.option("--version", default="", help="Its version there.")
@click.option(
    "--protocol",
    type=click.Choice([each.value for each in EndpointProtocol]),
    default=EndpointProtocol.OPEN_INFERENCE_HTTP.value,
    show_default=True,
    help="What the server speaks.",
)
def new(file: Path | None, server: str, model: str, version: str, protocol: str) -> None:
    """Look at the network FILE (.onnx, .keras, .h5, SavedModel folder) and write a manifest to fill in beside it.

    What the file does not tell (classes, codes, cut-offs, how images were prepared) is marked FILL IN. Until each is
    replaced, the manifest is refused. With --server and --model the network runs on a server of the Open Inference
    Protocol (Triton, KServe, MLServer, OpenVINO Model Server), or is a vendor's program (findings-http). The manifest
    is written into this folder.
    """
    if (file is None) == (not server) or (server and not model):
        fail("give a FILE, or --server with --model")
    manifest = file.with_suffix(".toml") if file is not None else Path(f"{model}.toml")
    if manifest.exists():
        fail(f"{manifest} is there already; remove or rename it first")
    if file is not None:
        _import_needed(file)
    with _fail_on_model_error(), console.status(f"{manifest.stem}: loading and running on noise"):
        if file is not None:
            text = new_manifest(look_at(file))
        else:
            text = _manifest_of_server(_endpoint(server, model, version, protocol))
    manifest.write_text(text, encoding="utf-8")
    console.print(
        f"{manifest}: fill in {', '.join(left_open(tomllib.loads(text)))}; then run", soft_wrap=True, markup=False
    )
    what = f"{file} " if file is not None else ""
    console.print(f"pleura models add {what}--manifest {manifest}", soft_wrap=True, markup=False)


def _manifest_of_server(endpoint: EndpointSpec) -> str:
    if endpoint.protocol is not EndpointProtocol.FINDINGS_HTTP:
        return new_manifest(look_at_server(endpoint))
    description = describe(endpoint)
    if (description.name, description.version) != (endpoint.model, endpoint.version):
        fail(f"{endpoint.url} runs {description.name} {description.version}: name it with --model and --version")
    return new_findings_manifest(endpoint, description)


def _endpoint(server: str, model: str, version: str, protocol: str) -> EndpointSpec:
    try:
        return EndpointSpec(protocol=EndpointProtocol(protocol), url=server, model=model, version=version)
    except ValidationError as error:
        fail(f"--server, --model or --version: {mistakes(error, EndpointSpec, {}, quoted=True)}")


@models.command("keys")
def list_keys() -> None:
    """Print every key of manifests and recipes, as the tables of docs/manifests.md."""
    click.echo(f"{manifest_table()}\n{recipe_table()}", nl=False)


@models.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), required=False)
@click.option(
    "--manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="Its manifest."
)
@click.pass_context
def add(context: click.Context, file: Path | None, manifest: Path) -> None:
    """Add the network FILE (.onnx, .keras, .h5, SavedModel folder) with its manifest to this node's models.

    It is verified first: digest, input, shape and range of every output. A Keras file or SavedModel is exported to
    ONNX, and the outputs of the two must agree. A network on a server has no FILE. The model does not run until the
    configuration names it.
    """
    settings = settings_of(context)
    if settings.models.folder is None:
        fail("this node has no folder of models: set `folder` under [models] in the configuration")

    def check(spec: ModelSpec) -> ModelSpec:
        with console.status(f"{spec.name}: exporting to ONNX"):
            both = _with_onnx(spec)
        _print_examination(_examined(both))
        return both

    with _fail_on_model_error():
        spec = add_model(settings.models.folder, manifest, file, check, manifest_text)
    console.print(f"{spec.name} {spec.version} is in {spec.file.parent}. To run it in shadow, configure")
    names = ", ".join(f'"{name}"' for name in (*settings.models.shadow, spec.name))
    console.print(f"[models]\nshadow = [{names}]", markup=False)
    console.print("and restart the node; `pleura models activate` starts the delivery of its findings.")


def _with_onnx(spec: ModelSpec) -> ModelSpec:
    if spec.endpoint is not None or spec.file.suffix == ".onnx":
        return spec
    import_keras()
    try:
        from models.training.onnx_export import ExportError, with_onnx
    except ImportError:
        if spec.onnx is not None:
            raise ModelStoreError("comparing the two networks needs `pip install 'pleura[train]'`") from None
        console.print("no ONNX export without `pip install 'pleura\\[train]'`: TensorFlow runs the model, more slowly")
        return spec
    try:
        return with_onnx(spec)
    except ExportError as error:
        raise ModelStoreError(str(error)) from error


@models.command()
@click.argument("name")
@click.argument("members", nargs=-1, required=True)
@click.option("--version", default="1.0.0", show_default=True, help="Version of the ensemble.")
@click.option("--title", default="", help="Title in results; by default the members' names.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for its files.")
@click.pass_context
def combine(context: click.Context, name: str, members: tuple[str, ...], version: str, title: str, out: Path) -> None:
    """Combine the classifiers MEMBERS into one model NAME: the mean of their probabilities.

    The result is a separate model, in shadow until its manifest has evidence: measure it with `pleura evaluate`, then
    add it with `pleura models add`.
    """
    settings = settings_of(context)
    try:
        from models.training.combine import CombineError
        from models.training.combine import combine as run
    except ImportError:
        fail("combining models needs pip install 'pleura[train]'")
    with _fail_on_model_error():
        chosen = read_registry(settings.models.folder).active(members)
        try:
            spec = run(chosen, name, version, title or f"Mean of {' and '.join(members)}", out)
        except CombineError as error:
            fail(str(error))
        _print_examination(_examined(spec))
    console.print(f"{spec.file} and its manifest; labels: {', '.join(label.name for label in spec.labels)}")


@models.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(context: click.Context, name: str, yes: bool) -> None:
    """Delete the model NAME and its files from this node's folder of models."""
    settings = settings_of(context)
    configured = settings.models
    with _fail_on_model_error():
        read_registry(configured.folder, verify=False).find(name)
        if not yes:
            click.confirm(f"Delete {name} with its files?", abort=True)
        gone = remove_model(configured.folder, name, configured.names)
    for path in gone:
        console.print(f"deleted {path}")


def _switch(context: click.Context, name: str, state: ModelState, reason: str) -> None:
    settings = settings_of(context)
    with _fail_on_model_error():
        registry = read_registry(settings.models.folder, verify=False)
        _check_switchable(registry, name, settings.models)
        engine = open_engine(settings)
        now = datetime.now(UTC)
        done = set_model_state(engine, name, state, actor=actor(), reason=reason, now=now)
    if not done.changed:
        console.print(f"{name} is {state.value} already")
        return
    console.print(f"{name} is {state.value} for every job from now on")
    if done.on_hold:
        console.print(f"{done.on_hold} unsent results with its findings are on hold")


def _check_switchable(registry: Registry, name: str, configured: Models) -> None:
    spec = registry.find(name)
    if name == configured.gate:
        fail(f"{name} is the input quality check: it has no findings and cannot be switched")
    if name == configured.lungs:
        fail(f"{name} says where the lungs are: it has no findings and cannot be switched")
    if name not in (*configured.active, *configured.shadow):
        fail(f"the node does not run {name}: name it under [models] active or shadow in the configuration and restart")
    if spec.mode is Mode.SHADOW:
        console.print(f"note: the manifest of {name} keeps all its findings in shadow in every state")


_SWITCHES = {
    "activate": (ModelState.ACTIVE, "Deliver the findings of the model NAME, from the next job on."),
    "shadow": (
        ModelState.SHADOW,
        "Store and compare the findings of the model NAME without sending them, from the next job on.",
    ),
    "off": (
        ModelState.OFF,
        "Switch the model NAME off: its findings are neither sent nor used, and its unsent results are put on hold.",
    ),
}


def _add_switch(command: str, state: ModelState, description: str) -> None:
    @models.command(command, help=description)
    @click.argument("name")
    @click.option("--reason", default="", help="Reason, stored with the change.")
    @click.pass_context
    def switch(context: click.Context, name: str, reason: str) -> None:
        _switch(context, name, state, reason)


for _command, (_state_of_command, _description) in _SWITCHES.items():
    _add_switch(_command, _state_of_command, _description)
