"""deploy/helm/pleura: rendered by helm, valid by the schemas of Kubernetes, and true to the settings and commands."""

from __future__ import annotations

import json
import re
import tarfile
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from config.environment import misspelt
from config.settings import CONFIG_VARIABLE, Settings, load
from node.cli.main import cli
from tests.helm.conftest import CHART, LEAST, Helm, Object, rendered

pytestmark = pytest.mark.xdist_group("helm")
ROOT = Path(__file__).resolve().parents[2]
SECRETS = "/run/secrets/pleura"
PEERS = ROOT / "config" / "production.toml"

EVERYTHING: dict[str, Any] = {
    **LEAST,
    "config": PEERS.read_text(encoding="utf-8"),
    "imagePullSecrets": [{"name": "registry"}],
    "secret": {
        "existing": "pleura-secrets",
        "settings": {
            "database.password": "database-password",
            "broker.password": "broker-password",
            "admin.metrics_token": "metrics-token",
        },
    },
    "tls": {"existingSecret": "pleura-tls"},
    "listener": {"transport": "both", "blockEviction": True, "service": {"type": "NodePort", "nodePort": 31112}},
    "worker": {
        "image": {"tag": "0.1.0-gpu"},
        "device": "gpu",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "nodeSelector": {"gpu": "true"},
        "autoscaling": {"kind": "keda", "prometheusURL": "http://prometheus.monitoring:9090"},
    },
    "admin": {
        "https": True,
        "trustedProxies": ["10.42.0.0/16"],
        "env": {"PLEURA_ADMIN__TLS_CERTIFICATE": "/run/tls/tls.crt", "PLEURA_ADMIN__TLS_KEY": "/run/tls/tls.key"},
        "ingress": {"enabled": True, "className": "nginx", "host": "pleura.hospital", "tlsSecret": "page-tls"},
    },
    "hl7": {"enabled": True},
    "dicomweb": {
        "enabled": True,
        "ingress": {"enabled": True, "className": "nginx", "host": "dicom.hospital", "tlsSecret": "dicomweb-tls"},
    },
    "networkPolicy": {
        "dicomFrom": [{"ipBlock": {"cidr": "10.0.0.10/32"}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "grafanaDashboard": {"enabled": True},
    },
    "env": {"TZ": "Europe/Berlin"},
    "extraVolumes": [{"name": "networks", "configMap": {"name": "networks"}}],
    "extraVolumeMounts": [{"name": "networks", "mountPath": "/networks"}],
}
"""Every part, and every option that adds an object."""

OTHERS: dict[str, Any] = {
    **LEAST,
    "image": {"repository": "registry.example/pleura", "digest": f"sha256:{'0' * 64}"},
    "secret": {"values": {"database-password": "a@b/c", "metrics-token": "x" * 32, "url": "redis://:secret@r"}}
    | {"settings": {"admin.metrics_token": "metrics-token", "broker.url": "url"}},
    "broker": {"url": ""},
    "worker": {"autoscaling": {"kind": "hpa"}},
    "gpuWorker": {"enabled": True, "image": {"tag": "0.1.0-gpu"}},
    "listener": {"transport": "tls", "replicas": 2},
    "scheduler": {"replicas": 2},
    "dicomweb": {"enabled": True, "replicas": 2, "service": {"type": "NodePort", "nodePort": 30443}},
    "store": {"existingClaim": "images"},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
}
"""The other side of each choice."""

SETS = {"least": LEAST, "everything": EVERYTHING, "others": OTHERS, "stopped": {**EVERYTHING, "stopped": True}}
POLICY = "PodDisruptionBudget"
OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds of the operators of Prometheus and KEDA, whose schemas no package here has."""


@pytest.fixture(scope="module")
def objects(helm: Helm) -> dict[str, list[Object]]:
    return {name: rendered(helm, values) for name, values in SETS.items()}


def _pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]


def _variables(container: Object) -> dict[str, str]:
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names)), "Kubernetes would take the last of them"
    return {each["name"]: each["value"] for each in container["env"]}


def _selected(objects: list[Object], labels: dict[str, str]) -> list[Object]:
    """The templates of the pods with these labels."""
    return [pod for _, pod in _pods(objects) if labels.items() <= pod["metadata"]["labels"].items()]


def _of(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def test_helm_finds_no_fault(helm: Helm) -> None:
    done = helm("lint", "--strict", str(CHART), values=EVERYTHING)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "version"), [("least", "1.37"), ("everything", "1.27"), ("everything", "1.37"), ("others", "1.37")]
)
def test_kubernetes_knows_every_field(
    objects: dict[str, list[Object]], name: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kubernetes_validate  # with jsonschema more than a second of CPU, which only this test needs
    from kubernetes_validate import utils

    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    unknown = set()
    for each in objects[name]:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(each["kind"])
    assert unknown <= OPERATORS
    assert name != "everything" or unknown == OPERATORS


def _check_command(arguments: list[str]) -> None:
    """The command exists, with these options and arguments."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), arguments[0])
        assert found is not None, arguments
        command, arguments = found, arguments[1:]
    command.make_context("pleura", arguments)


@pytest.mark.parametrize("name", SETS)
def test_each_container_runs_a_command_of_ours_with_settings_that_exist(
    objects: dict[str, list[Object]], name: str
) -> None:
    for _, pod in _pods(objects[name]):
        (container,) = pod["spec"]["containers"]
        asked = [
            probe["exec"]["command"] for key, probe in container.items() if key.endswith("Probe") and "exec" in probe
        ]
        for arguments in (container["args"], *(arguments[1:] for arguments in asked)):
            _check_command(list(arguments))
        assert misspelt(_variables(container), Settings, frozenset({CONFIG_VARIABLE})) is None


@pytest.mark.parametrize("name", ["least", "everything", "others"])
def test_the_settings_of_a_pod_are_those_of_the_values(
    objects: dict[str, list[Object]], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = [each for each in _of(objects[name], "ConfigMap") if "pleura.toml" in each["data"]]
    (tmp_path / "pleura.toml").write_text(config["data"]["pleura.toml"], encoding="utf-8")
    for key in ("database-password", "broker-password", "metrics-token"):
        (tmp_path / key).write_text("p@ss", encoding="utf-8")
    (tmp_path / "url").write_text("redis://:secret@r", encoding="utf-8")
    for pod_name, pod in _pods(objects[name]):
        (container,) = pod["spec"]["containers"]
        with monkeypatch.context() as patched:
            for variable, value in _variables(container).items():
                local = value.replace(SECRETS, str(tmp_path)).replace("/etc/pleura", str(tmp_path))
                # A transport with TLS needs its files in pleura.toml.
                patched.setenv(variable, "plain" if variable == "PLEURA_LISTENER__TRANSPORT" else local)
            settings = load()
        assert settings.database_url == "postgresql+psycopg://pleura:p%40ss@postgres.example/pleura"
        if pod_name == "pleura-migrations":
            continue
        assert settings.broker.url is not None
        assert str(settings.store.folder) in {mount["mountPath"] for mount in container["volumeMounts"]}
        found = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
        ours = {
            "dicom": settings.listener.port,
            "dicom-tls": settings.listener.tls_port,
            "page": settings.admin.port,
            "mllp": settings.hl7.port,
            "dicomweb": settings.dicomweb.port,
        }
        assert found.items() <= ours.items()
        assert settings.hl7.enabled is (name == "everything")
        assert settings.dicomweb.enabled is (name != "least")
        if pod_name == "pleura-worker":
            assert settings.workers.threads == 2
            assert (settings.workers.device == "gpu") is (name == "everything")


@pytest.mark.parametrize("name", SETS)
def test_what_names_another_object_finds_it(objects: dict[str, list[Object]], name: str) -> None:
    made = objects[name]
    for service in _of(made, "Service"):
        (pod,) = _selected(made, service["spec"]["selector"])
        ports = {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
        assert {each["targetPort"] for each in service["spec"]["ports"]} == ports
    for policy in _of(made, "NetworkPolicy"):
        pods = _selected(made, policy["spec"]["podSelector"]["matchLabels"])
        named = {port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule["ports"]}
        assert pods
        assert named <= {port["name"] for pod in pods for port in pod["spec"]["containers"][0].get("ports", ())}
    for budget in _of(made, "PodDisruptionBudget"):
        assert len(_selected(made, budget["spec"]["selector"]["matchLabels"])) == 1
    deployments = {each["metadata"]["name"] for each in _of(made, "Deployment")}
    for scaler in _of(made, "HorizontalPodAutoscaler") + _of(made, "ScaledObject"):
        assert scaler["spec"]["scaleTargetRef"]["name"] in deployments
    for monitor in _of(made, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [each for each in _of(made, "Service") if wanted <= each["metadata"]["labels"].items()]
        assert monitor["spec"]["endpoints"][0]["port"] in {each["name"] for each in service["spec"]["ports"]}
        # The alert PleuraGone asks for this job.
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "pleura"
    for _, pod in _pods(made):
        mounted = {each["name"] for each in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["spec"]["volumes"]}


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_hardened_as_the_compose_file_has_it(objects: dict[str, list[Object]], name: str) -> None:
    user = re.search(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user
    for _, pod in _pods(objects[name]):
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser", int(user[1])) == int(user[1])
        assert ("runAsUser" in spec["securityContext"]) is (name != "others"), "OpenShift chooses it"
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_the_parts_run_as_often_as_the_values_say(objects: dict[str, list[Object]]) -> None:
    for name, made in objects.items():
        (listener,) = _of(made, "StatefulSet")
        replicas = {each["metadata"]["name"]: each["spec"].get("replicas") for each in _of(made, "Deployment")}
        several = {"stopped": 0, "others": 2}.get(name, 1)
        assert listener["spec"]["replicas"] == replicas["pleura-scheduler"] == several
        assert replicas.get("pleura-dicomweb", several) == several
        # An autoscaler says how many.
        assert replicas["pleura-worker"] == {"least": 1, "stopped": 0}.get(name)
        assert all(each["spec"]["strategy"] == {"type": "Recreate"} for each in _of(made, "Deployment"))
    budgets = {each["metadata"]["name"]: each["spec"]["maxUnavailable"] for each in _of(objects["others"], POLICY)}
    assert budgets["pleura-listener"] == 1, "the other one receives"
    budgets = {each["metadata"]["name"]: each["spec"]["maxUnavailable"] for each in _of(objects["everything"], POLICY)}
    assert budgets["pleura-listener"] == 0, "no drain may evict it"
    stopped = objects["stopped"]
    assert {each["spec"]["replicas"] for each in stopped if each["kind"] in ("Deployment", "StatefulSet")} == {0}
    assert not _of(stopped, "ScaledObject") + _of(stopped, "Job")


def test_workers_with_and_without_a_gpu_take_the_queues_of_their_devices(objects: dict[str, list[Object]]) -> None:
    taken = {name: pod["spec"]["containers"][0] for name, pod in _pods(objects["others"]) if "worker" in name}
    assert taken["pleura-worker"]["args"][-1] == "jobs.cpu"
    assert taken["pleura-worker-gpu"]["args"][-1] == "jobs.gpu"
    assert taken["pleura-worker-gpu"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "PLEURA_WORKERS__DEVICE" not in _variables(taken["pleura-worker-gpu"]), "the queue says it"
    (scaler,) = _of(objects["others"], "HorizontalPodAutoscaler")
    assert scaler["spec"]["metrics"][0]["external"]["metric"]["selector"] == {"matchLabels": {"queue": "jobs.cpu"}}
    (scaler,) = _of(objects["everything"], "ScaledObject")
    assert 'queue="jobs"' in scaler["spec"]["triggers"][0]["metadata"]["query"]


def test_alerts_and_dashboard_are_those_of_deploy_grafana(objects: dict[str, list[Object]]) -> None:
    folder = ROOT / "deploy" / "grafana"
    (rules,) = _of(objects["everything"], "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((folder / "alerts.yml").read_text(encoding="utf-8"))
    (board,) = [each for each in _of(objects["everything"], "ConfigMap") if "pleura.json" in each["data"]]
    assert json.loads(board["data"]["pleura.json"]) == json.loads(
        (folder / "dashboard.json").read_text(encoding="utf-8")
    )


def test_the_package_holds_the_files_and_no_links(helm: Helm, tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tarfile.open(tmp_path / f"pleura-{project['version']}.tgz") as archive:
        assert all(each.isfile() for each in archive)
        alerts = archive.extractfile("pleura/files/alerts.yml")
        assert alerts is not None
        assert alerts.read() == (ROOT / "deploy" / "grafana" / "alerts.yml").read_bytes()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == project["version"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": {}}, "image.repository: push the image"),
        ({"databse": {}}, "additional properties 'databse' not allowed"),
        ({"database": {"url": "postgresql://pleura:secret@db/pleura"}}, "at '/database/url'"),
        ({"secret": {}}, "there is no Secret: set secret.existing"),
        ({"gpuWorker": {"enabled": True}, "worker": {"device": "cpu"}}, "leave worker.device at auto"),
        ({"dicomweb": {"enabled": True, "ingress": {"enabled": True}}}, "dicomweb.ingress.host: give its name"),
        ({"worker": {"autoscaling": {"kind": "hpa"}}}, 'set secret.settings["admin.metrics_token"]'),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_reason(helm: Helm, change: Object, sentence: str) -> None:
    done = helm("template", "pleura", str(CHART), values={**LEAST, **change})
    assert done.returncode != 0
    assert sentence in done.stderr


def test_the_notes_say_what_it_is_not_and_what_to_do_next(helm: Helm) -> None:
    done = helm("install", "pleura", str(CHART), "--dry-run=client", values=LEAST)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "Research use only. Not a medical device." in notes
    assert "exec pleura-listener-0 -- pleura doctor" in notes
    assert "No peer is configured" in notes


def _merged(one: Object, other: Object) -> Object:
    """The values of both files, as Helm takes them together."""
    return one | {
        key: _merged(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value
        for key, value in other.items()
    }


def test_the_examples_of_the_page_can_be_used(helm: Helm) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    values: Object = {}
    for indent, block in blocks:
        values = _merged(values, yaml.safe_load(re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)))
    assert {"ScaledObject", "ServiceMonitor", "Ingress"} <= {each["kind"] for each in rendered(helm, values)}


def _paths(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in schema.get("properties", {}).items():
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def test_values_yaml_shows_every_value() -> None:
    """The other way round, helm itself refuses a default that the schema does not have."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    missing = []
    for path in _paths(schema):
        place: Any = values
        for key in path:
            place = place.get(key, KeyError) if isinstance(place, dict) else KeyError
        if place is KeyError and path[0] != "global" and path[1:2] != ("image",):
            missing.append(".".join(path))
    assert missing == []


def test_each_part_asks_for_as_much_memory_as_was_measured(objects: dict[str, list[Object]]) -> None:
    text = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z, ]+) \| (?:\*\*)?([\d.]+) MB \| (?:(\d+) MB)?", text, re.MULTILINE)
    measured = {name.partition(",")[0]: int(highest or usual) for name, usual, highest in rows}
    parts = {
        "listener": "listener",
        "analysis worker": "worker",
        "delivery worker": "delivery",
        "scheduler": "scheduler",
        "admin page": "admin",
    }
    units = {"Mi": 2**20, "Gi": 2**30}
    for row, part in parts.items():
        pod = next(pod for name, pod in _pods(objects["least"]) if name == f"pleura-{part}")
        asked = pod["spec"]["containers"][0]["resources"]["requests"]["memory"]
        assert int(asked[:-2]) * units[asked[-2:]] >= measured[row] * 10**6, part
