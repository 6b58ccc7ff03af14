"""The image and the Compose file on a real Docker engine: built, hardened, sent a radiograph, stopped in good order.

Only the images of others are stand-ins, where no registry is reached: Debian's packages (``stand_ins``).
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from packaging.utils import canonicalize_name
from pydicom.data import get_testdata_file

from tests.bills import faults_of_bill
from tests.containers.engine import BASE, Engine, running_engine
from tests.orthanc import wait_until
from tests.ports import free_port

pytestmark = [
    pytest.mark.image,
    pytest.mark.peer("storescu"),
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("images"),
]

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
IMAGE = COMPOSE["services"]["listener"]["image"]
OTHERS = sorted({each["image"] for each in COMPOSE["services"].values() if not each["image"].startswith("pleura:")})
STAND_INS = "pleura-test-stand-ins"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LARGEST, LARGEST_COMPRESSED = 1_300_000_000, 300_000_000
"""Bytes: the unpacked image, and what it adds to its base as a registry keeps it (the base itself has about 45 MB)."""
# Everything that means something in a URL or a shell; Compose itself would expand a $.
PASSWORD = "p@ss/w#rd%41?&=:;'\"\\ ü"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine, ThreadPoolExecutor() as beside:
        # Both wait for packages most of the time.
        others = beside.submit(engine.build, ROOT / "tests" / "containers" / "stand_ins", STAND_INS)
        engine.build(ROOT, IMAGE, "--target", "cpu")
        others.result()
        yield engine


@contextmanager
def _pacs(port: int, folder: Path) -> Iterator[None]:
    """DCMTK's receiver; what it takes lies in ``folder``."""
    command = ["storescp", "--aetitle", "PACS", "--output-directory", str(folder), str(port)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def _radiograph() -> Path:
    found = get_testdata_file("RG1_UNCR.dcm", download=False)
    if found is None:
        raise AssertionError("pydicom-data is missing: it is in the extra `demo`")
    return Path(str(found))


def test_the_image_says_what_is_in_it(engine: Engine) -> None:
    run = ("run", "--rm", "--network", "none", "--entrypoint")
    bill = json.loads(engine.docker(*run, "cat", IMAGE, "/opt/pleura/sbom.cdx.json"))
    assert not faults_of_bill(bill)
    seen = {each["name"]: each["version"] for each in bill["components"]}
    listed = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = dict(one.split("==") for one in engine.docker(*run, "python", IMAGE, "-c", listed).split())
    own = {"pleura", "pip", "setuptools", "wheel"}
    assert {
        canonicalize_name(name): version for name, version in installed.items() if name not in own
    }.items() <= seen.items()
    assert seen["libc6"]
    found = engine.docker(*run, "find", IMAGE, "/opt/pleura/lib", "-path", "*dist-info/sboms/*")
    assert found.endswith("cpu.cdx.json")
    labels = json.loads(engine.docker("inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    assert labels["org.opencontainers.image.base.name"] == BASE


def test_a_hardened_container_of_any_user_returns_a_segmentation(engine: Engine, tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("listener", "admin", "pacs")}
    destination = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": ports["pacs"]}]
    settings = {
        "PLEURA_LISTENER__HOST": "127.0.0.1",
        "PLEURA_LISTENER__PORT": str(ports["listener"]),
        "PLEURA_ADMIN__HOST": "127.0.0.1",
        "PLEURA_ADMIN__PORT": str(ports["admin"]),
        "PLEURA_DESTINATIONS": json.dumps(destination),
        "PLEURA_SERVICE_HOST": "10.96.0.7",  # as Kubernetes does for a Service of that name
        "PLEURA_PORT": "tcp://10.96.0.7:11112",
    }
    variables = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    # Any user of group 0, as OpenShift chooses one; nothing may be written but the volume and /tmp.
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    user = ["--user", "1000620000:0", "--network", "host"]
    with _pacs(ports["pacs"], tmp_path):
        name = engine.docker("run", "--detach", *hardened, *user, *variables, IMAGE, "serve")
        try:
            wait_until(
                lambda: "answers" in engine.docker("exec", name, "pleura", "echo", check=False), "an echo", 180, 1
            )
            address = ["127.0.0.1", str(ports["listener"])]
            engine.run("storescu", "-aet", "PACS", "-aec", "PLEURA", *address, _radiograph())
            wait_until(lambda: SEG in {_class_of(path) for path in tmp_path.iterdir()}, "a SEG", 180, 1)
            engine.docker("exec", name, "pleura", "doctor", "--no-peers")
            engine.docker("exec", name, "pleura", "probe", "serve")  # the image's own health check
            engine.docker("stop", "--time", "60", name)
            assert engine.docker("inspect", name, "--format", "{{.State.ExitCode}}") == "0"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{engine.docker('logs', name)[-4000:]}") from error
        finally:
            engine.docker("rm", "--force", "--volumes", name, check=False)


def test_the_image_is_small_and_its_code_is_a_layer_of_its_own(engine: Engine) -> None:
    (answer,) = json.loads(engine.docker("image", "inspect", IMAGE))
    assert answer["Size"] < LARGEST
    assert answer["Config"]["User"].split(":")[0].isdecimal()
    compressed = engine.compressed(IMAGE, without=BASE)
    print(f"compressed, without the base: at most {compressed / 1e6:.0f} MB")
    assert compressed < LARGEST_COMPRESSED
    sizes = engine.docker("history", "--human=false", "--format", "{{.Size}}", IMAGE).splitlines()
    assert int(sizes[0]) < 0.25 * answer["Size"]


def test_compose_brings_up_the_node_beside_a_pacs_and_keeps_its_data(engine: Engine, tmp_path: Path) -> None:
    for image in OTHERS:
        engine.docker("tag", STAND_INS, image)
    engine.environment.update(PLEURA_DB_PASSWORD=PASSWORD, PLEURA_CONFIG="config/demo/pleura.toml")
    compose = ["docker-compose", "--project-name", "pleura-test", "--profile", "demo"]
    try:
        engine.run(*compose, "up", "--detach", "--no-build", "--scale", "worker=2", folder=ROOT)
        _wait_for_orthanc()
        _request("instances", _radiograph().read_bytes())
        wait_until(lambda: SEG in _classes(), "a SEG in the PACS", 300, 2)
        engine.run(*compose, "stop", "--timeout", "60", folder=ROOT)
        assert set(_exit_codes(engine).values()) == {"0"}
        engine.run(*compose, "down", folder=ROOT)
        engine.run(*compose, "up", "--detach", "--no-build", folder=ROOT)
        _wait_for_orthanc()
        listed = engine.run(*compose, "exec", "-T", "admin", "pleura", "worklist", folder=ROOT)
        assert "RG" in listed or "1 stud" in listed, listed
    except AssertionError as error:
        raise AssertionError(f"{error}\n{engine.run(*compose, 'logs', '--tail', '40', folder=ROOT)[-8000:]}") from error
    finally:
        engine.run(*compose, "down", "--volumes", "--remove-orphans", folder=ROOT, check=False)


def _class_of(path: Path) -> str:
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID)
    except (pydicom.errors.InvalidDicomError, EOFError, AttributeError):  # not whole yet
        return ""


def _request(path: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:8042/{path}", body), timeout=60) as answer:
        return json.loads(answer.read())


def _wait_for_orthanc() -> None:
    def answers() -> bool:
        try:
            return bool(_request("system"))
        except OSError:
            return False

    wait_until(answers, "Orthanc", 240, 1)


def _classes() -> set[str]:
    return {_request(f"instances/{each}/tags?simplify")["SOPClassUID"] for each in _request("instances")}


def _exit_codes(engine: Engine) -> dict[str, str]:
    """The exit code of each container of the node, by its name; health checks that ran are no part of it."""
    time.sleep(1)
    names = engine.docker("ps", "--all", "--filter", f"ancestor={IMAGE}", "--format", "{{.Names}}").split()
    return {name: engine.docker("inspect", name, "--format", "{{.State.ExitCode}}") for name in names}
