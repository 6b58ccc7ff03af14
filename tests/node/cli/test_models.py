"""``pleura models`` with real network files in a site's folder, and the database that remembers a switch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner, Result

from config.settings import load
from db.engine import connect
from db.model_states import latest_switches
from models.manifest import file_digest
from node.cli.main import cli
from tests.migrated import migrate
from tests.models.samples import classifier_graph, manifest
from tests.models.training.keras_or_skip import require_keras

Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pleura.toml"
    values = {"store": {"folder": str(tmp_path / "var")}, "models": {"folder": str(tmp_path / "models")}}
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "var").mkdir()
    return path


@pytest.fixture
def run(config: Path) -> Run:
    return lambda *arguments, **options: CliRunner().invoke(cli, ["--config", str(config), *arguments], **options)


@pytest.fixture
def offered(tmp_path: Path) -> Path:
    (tmp_path / "offered").mkdir()
    return classifier_graph(tmp_path / "offered" / "foreign.onnx")


def test_lists_and_shows_the_bundled_models(run: Run) -> None:
    listed = run("models", "list")
    assert listed.exit_code == 0, listed.output
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()[1:]}
    assert "gate" in rows["chest-gate"]
    assert "active" in rows["chest-classifier"]
    shown = run("models", "show", "chest-classifier").stdout
    assert "not a medical device" in shown.lower()
    assert "lung_opacity" in shown
    assert "active, replaces chest-classifier" in " ".join(run("models", "show", "chest-opacity").stdout.split())


def test_a_foreign_network_comes_by_its_manifest_alone_and_goes_again(run: Run, offered: Path, tmp_path: Path) -> None:
    written = manifest(offered, "foreign")
    done = run("models", "add", str(offered), "--manifest", str(written))
    assert done.exit_code == 0, done.output
    assert "usable" in done.stdout
    assert 'shadow = ["foreign"]' in done.stdout
    assert "not configured" in run("models", "list").stdout
    assert run("models", "verify", "foreign").exit_code == 0
    again = run("models", "add", str(offered), "--manifest", str(written))
    assert again.exit_code == 1
    assert "there is a model 'foreign' already" in again.stderr
    assert run("models", "remove", "foreign", "--yes").exit_code == 0
    assert list((tmp_path / "models").iterdir()) == []


def test_the_network_may_lie_elsewhere(run: Run, offered: Path, tmp_path: Path) -> None:
    written = manifest(offered, "foreign")
    moved = tmp_path / "mail" / "foreign.onnx"
    moved.parent.mkdir()
    offered.rename(moved)
    assert run("models", "add", str(moved), "--manifest", str(written)).exit_code == 0
    assert run("models", "verify", "foreign").exit_code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("height = 32", "height = 64"), "takes"),
        (('digest = "', 'digest = "0'), "digest"),
        (('[[labels]]\nname = "other"', '[[other]]\nname = "other"'), "other: there is no such key"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_and_leaves_nothing(
    run: Run, offered: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    written = manifest(offered, "foreign")
    written.write_text(written.read_text().replace(*change))
    done = run("models", "add", str(offered), "--manifest", str(written))
    assert done.exit_code == 1
    assert message in done.stderr
    assert list((tmp_path / "models").iterdir()) == []


def test_a_missing_label_is_named(run: Run, offered: Path) -> None:
    written = manifest(classifier_graph(offered, classes=3), "foreign")
    done = run("models", "add", str(offered), "--manifest", str(written))
    assert done.exit_code == 1
    assert "[1, 2] is needed for 2 labels" in done.stderr


def test_answers_that_are_no_numbers_are_refused(run: Run, tmp_path: Path) -> None:
    network = classifier_graph(tmp_path / "nan.onnx", bias=float("nan"))
    done = run("models", "add", str(network), "--manifest", str(manifest(network, "nan")))
    assert done.exit_code == 1
    assert "NaN" in done.stderr


def test_a_network_changed_on_disk_fails_verify(run: Run, offered: Path, tmp_path: Path) -> None:
    run("models", "add", str(offered), "--manifest", str(manifest(offered, "foreign")))
    installed = tmp_path / "models" / "foreign.onnx"
    installed.write_bytes(installed.read_bytes() + b"\0")
    done = run("models", "verify")
    assert done.exit_code == 1
    assert "has the digest" in done.stderr
    assert "1 of 5 models cannot be used" in done.stderr


def test_bundled_and_configured_models_stay(run: Run, config: Path, offered: Path) -> None:
    assert "bundled" in run("models", "remove", "chest-gate", "--yes").stderr
    run("models", "add", str(offered), "--manifest", str(manifest(offered, "foreign")))
    text = config.read_text().replace("[models]", '[models]\nshadow = ["foreign"]')
    config.write_text(text, encoding="utf-8")
    done = run("models", "remove", "foreign", "--yes")
    assert done.exit_code == 1
    assert "the configuration runs 'foreign'" in done.stderr


def test_a_switch_is_remembered_with_who_and_why(run: Run, config: Path) -> None:
    assert "`pleura serve` creates it" in run("models", "off", "chest-classifier").stderr
    migrate(connect(load(config).database_url))
    done = run("models", "off", "chest-classifier", "--reason", "drift since the new detector")
    assert done.exit_code == 0, done.output
    switch = latest_switches(connect(load(config).database_url))["chest-classifier"]
    assert (switch.state.value, switch.reason) == ("off", "drift since the new detector")
    assert "off (by " in run("models", "list").stdout
    assert "already" in run("models", "off", "chest-classifier").stdout
    assert run("models", "activate", "chest-classifier").exit_code == 0


def test_the_gate_and_models_that_do_not_run_cannot_be_switched(run: Run, config: Path, offered: Path) -> None:
    migrate(connect(load(config).database_url))
    assert "is the input quality check" in run("models", "off", "chest-gate").stderr
    run("models", "add", str(offered), "--manifest", str(manifest(offered, "foreign")))
    assert "does not run foreign" in run("models", "activate", "foreign").stderr
    assert "there is no model 'nobody'" in run("models", "activate", "nobody").stderr


def test_without_a_folder_add_says_what_to_configure(offered: Path, tmp_path: Path) -> None:
    config = tmp_path / "bare.toml"
    config.write_text(tomli_w.dumps({"store": {"folder": str(tmp_path / "var")}}), encoding="utf-8")
    arguments = ["--config", str(config), "models", "add", str(offered), "--manifest", str(manifest(offered, "x"))]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "set `folder` under [models]" in done.stderr


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_gets_its_onnx_onnx_export(run: Run, tmp_path: Path, suffix: str) -> None:
    require_keras()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from models.model_registry import read_registry
    from models.runtime.loading import load as load_model
    from models.runtime.onnx_executor import OnnxExecutor

    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 1))
    features = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    network = tmp_path / f"foreign{suffix}"
    keras.Model(image, keras.layers.Dense(2, activation="sigmoid")(pooled)).save(network)
    done = run("models", "add", str(network), "--manifest", str(_unplaced(manifest(network, "foreign"))))
    assert done.exit_code == 0, done.output
    spec = read_registry(tmp_path / "models").find("foreign")
    assert spec.file.suffix == suffix
    assert spec.onnx is not None
    assert isinstance(load_model(spec, device="cpu"), OnnxExecutor)
    shutil.copyfile(spec.file, spec.onnx)
    assert run("models", "verify", "foreign").exit_code == 1


def test_an_onnx_export_that_comes_along_must_be_the_same_network(run: Run, tmp_path: Path) -> None:
    require_keras()
    import keras

    image = keras.Input((32, 32, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    network = tmp_path / "foreign.keras"
    keras.Model(image, keras.layers.Dense(2, activation="sigmoid")(pooled)).save(network)
    other = classifier_graph(tmp_path / "other.onnx", maps=False)
    written = _unplaced(manifest(network, "foreign"))
    onnx_export = f'onnx = "{other.name}"\nonnx_digest = "{file_digest(other)}"\n\n[input]'
    written.write_text(written.read_text().replace("[input]", onnx_export, 1), encoding="utf-8")
    done = run("models", "add", str(network), "--manifest", str(written))
    assert done.exit_code == 1
    assert "its ONNX export differs by" in done.stderr
    assert list((tmp_path / "models").iterdir()) == []


def test_a_lambda_layer_is_refused(run: Run, tmp_path: Path) -> None:
    require_keras()
    import keras

    image = keras.Input((32, 32, 1))
    network = tmp_path / "evil.keras"
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(lambda x: x)(image))
    keras.Model(image, keras.layers.Dense(2, activation="sigmoid")(pooled)).save(network)
    done = run("models", "add", str(network), "--manifest", str(_unplaced(manifest(network, "evil"))))
    assert done.exit_code == 1
    assert "Lambda" in done.stderr
    assert list((tmp_path / "models").iterdir()) == []


def _unplaced(path: Path) -> Path:
    """The manifest without the map that these networks do not have."""
    text = path.read_text().replace("localised = true\nmap_threshold = 0.6\n", "")
    path.write_text(text, encoding="utf-8")
    return path
