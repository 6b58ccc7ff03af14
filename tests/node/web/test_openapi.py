"""The API against its own description: Schemathesis finds no answer that is not described, and a client that another
program generates from the description works against a served node.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from db.user_tables import Role
from db.users import Accounts
from node.web.api_models import CriticalFinding
from node.web.routes import API, api_operations
from tests.node.web.conftest import CHEAP, Site
from tests.node.web.demo import settings_for
from tests.node.web.test_live import served
from tests.peers import skip_without
from workers.notifications.formatting import trial_notification, values


@pytest.mark.slow
@pytest.mark.hypothesis
@pytest.mark.parametrize(
    ("role", "examples"),
    [
        (Role.ADMIN, 8),
        pytest.param(Role.ADMIN, 25, marks=pytest.mark.nightly),
        *(pytest.param(role, 8, marks=pytest.mark.campaign) for role in (Role.RADIOLOGIST, Role.VIEWER, None)),
    ],
)
def test_no_request_that_the_description_allows_or_forbids_breaks_the_node(
    site: Site, role: Role | None, examples: int
) -> None:
    """None: nobody, with a token that is none."""
    # Here, because each worker of pytest-xdist reads this file, and one runs this test: a second and a half of CPU.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    tokens = {each: site.services.accounts.add_token(each.value, each, site.clock.now, actor="ada")[1] for each in Role}
    headers = {"authorization": f"Bearer {tokens[role] if role else 'none'}"}
    schema = schemathesis.openapi.from_asgi(
        "/api/v1/openapi.json", site.app, headers={"authorization": f"Bearer {tokens[Role.ADMIN]}"}
    )
    tested = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except ValueError:
                continue

            @settings(
                max_examples=examples,
                deadline=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @_given(strategy)
            def run(case: schemathesis.Case) -> None:
                nonlocal tested
                case.call_and_validate(headers=headers, checks=checks)
                tested += 1

            run()
    assert tested > examples * 4 // 5 * len(api_operations())


def _given(strategy):
    from hypothesis import given

    return given(case=strategy)


def document_of(site: Site) -> dict[str, Any]:
    document: dict[str, Any] = site.logged_in("viewer").get(f"{API}/openapi.json").json()
    return document


def test_every_operation_is_described(site: Site) -> None:
    document = document_of(site)
    described = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(described) == {(one.method, one.path) for one in api_operations()}
    assert len({operation["operationId"] for operation in described.values()}) == len(described)
    known = {tag["name"] for tag in document["tags"]}
    for operation in described.values():
        assert operation["summary"]
        assert set(operation["tags"]) <= known
        problem = {"schema": {"$ref": "#/components/schemas/Error"}}
        for status in ("400", "401", "403", "404", "409", "413", "422", "503"):
            assert operation["responses"][status]["content"]["application/json"] == problem
        assert operation["security"] == [{"token": []}, {"session": []}]
    assert document["servers"][0]["url"] == API
    assert "not a medical device" in document["info"]["description"]


def test_the_table_of_operations_in_the_docs_is_true(site: Site) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+) (\S+)` \| (\w+) \| (.+) \|$", text, re.M)
    paths = document_of(site)["paths"]
    described = [
        (one.function.__name__, one.method, one.path, one.role.value, paths[one.path][one.method.lower()]["summary"])
        for one in api_operations()
    ]
    assert rows == described
    assert re.findall(r"^\| (\d{3}) \|", text, re.M) == ["400", "401", "403", "404", "409", "413", "422", "503"]


def test_the_documentation_page_shows_every_operation_and_schema(site: Site) -> None:
    document = document_of(site)
    text = site.logged_in("viewer").get(f"{API}/docs").text
    for methods in (*document["paths"].values(), *document["webhooks"].values()):
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in text
    for name in set(document["components"]["schemas"]) - {"Error"}:
        assert f'id="{name}"' in text
    assert set(re.findall(r'href="#(\w+)"', text)) <= set(re.findall(r'id="(\w+)"', text))


def test_the_described_webhook_is_the_one_that_is_sent(site: Site) -> None:
    notification = trial_notification("webhook", "key", site.clock.now)
    for patient_name in (False, True):
        body = values(notification, site.settings, patient_name=patient_name)
        read = CriticalFinding.model_validate_json(json.dumps(body), strict=False)
        assert read.model_dump(mode="json", exclude_unset=True).keys() == body.keys()
        assert read.study.model_dump(exclude_unset=True) == body["study"]
        assert read.raised_at == site.clock.now
    (parameters,) = (one["post"]["parameters"] for one in document_of(site)["webhooks"].values())
    described = {one["name"] for one in parameters if one["in"] == "header" and one["required"] and one["description"]}
    assert described == {"webhook-id", "webhook-timestamp", "webhook-signature"}


def times(value: Any, name: str = "") -> Iterator[str]:
    """Every text of an answer that is called a time."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from times(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from times(inner, name)
    elif isinstance(value, str) and (name == "at" or name.endswith("_at")):
        yield value


def test_every_time_says_its_time_zone(site: Site) -> None:
    client = site.logged_in("admin")
    found = [
        time
        for path in ("/worklist", "/studies/1", "/system", "/drift", "/models", "/audit")
        for time in times(client.get(API + path).json())
    ]
    assert len(found) > 20
    assert all(datetime.fromisoformat(time).tzinfo is not None for time in found)


def test_every_answer_with_findings_says_that_it_is_for_research(site: Site) -> None:
    client = site.logged_in("admin")
    for path in ("/worklist", "/studies?study_instance_uid=1.2.3", "/studies/1", "/drift"):
        assert client.get(API + path).json()["notice"] == "Research use only. Pleura is not a medical device.", path


def test_a_study_is_found_by_its_uid_and_by_its_accession_number(site: Site) -> None:
    client = site.logged_in("radiologist")
    row = site.services.worklist.rows([2])[0]
    by_uid = {"study_instance_uid": row.study_instance_uid}
    by_number = {"accession_number": row.accession_number}
    for query, expected in (
        (by_uid, [2]),
        (by_number, [2]),
        (by_uid | by_number, [2]),
        (by_uid | {"accession_number": "other"}, []),
        ({"study_instance_uid": "1.2.3"}, []),
        ({}, []),
    ):
        answer = client.get(f"{API}/studies", params=query).json()
        assert [study["study_id"] for study in answer["studies"]] == expected, query
    assert client.get(f"{API}/studies/{row.study_instance_uid}").json()["study"]["row"]["study_id"] == 2
    held = client.post(f"{API}/studies/{row.study_instance_uid}/hold", json={"reason": "wrong patient"})
    assert held.json()["study"]["id"] == 2
    assert client.get(f"{API}/studies/1.2.3.4").status_code == 404
    assert client.get(f"{API}/studies/abc").status_code == 422


def test_what_fails_is_listed_and_tried_again(site: Site) -> None:
    client = site.logged_in("admin")
    listed = client.get(f"{API}/problems").json()["problems"]
    assert {(one["entity"], one["destination"], one["failed"]) for one in listed} == {
        ("job", "", 1),
        ("delivery", "pacs", 2),
        ("delivery", "archive", 2),
    }
    chosen = next(one for one in listed if one["destination"] == "pacs")
    body = {name: chosen[name] for name in ("entity", "destination", "cause")}
    assert client.post(f"{API}/problems/retry", json=body).json() == {"jobs": 0, "deliveries": 2, "left": 0}
    assert client.post(f"{API}/problems/retry", json={}).json() == {"jobs": 1, "deliveries": 2, "left": 0}
    assert client.get(f"{API}/problems").json() == {"problems": []}
    assert client.post(f"{API}/problems/retry", json={"entity": "study"}).status_code == 422


def test_a_body_is_not_read_before_its_sender_is_known(site: Site) -> None:
    def endless() -> Iterator[bytes]:
        yield b"{"
        raise AssertionError("the body was read")

    answer = site.user().post(f"{API}/studies/1/hold", content=endless())
    assert answer.status_code == 401


@pytest.mark.slow
def test_a_generated_client_works(filled: Path, tmp_path: Path) -> None:
    if find_spec("openapi_python_client") is None:
        skip_without("openapi-python-client is missing: it is in the group dev of pyproject.toml")
    shutil.copytree(filled, tmp_path / "store")
    configuration = settings_for(tmp_path / "store")
    with served(configuration) as port:
        from db.engine import connect

        engine = connect(configuration.database_url)
        _, secret = Accounts(engine, CHEAP).add_token("client", Role.RADIOLOGIST, datetime.now(UTC), actor="test")
        engine.dispose()
        fetched = subprocess.run(
            [sys.executable, "-P", "-c", _FETCH, f"http://127.0.0.1:{port}{API}/openapi.json", secret],
            check=True,
            capture_output=True,
            timeout=60,
        )
        (tmp_path / "openapi.json").write_bytes(fetched.stdout)
        generate = "openapi_python_client generate --path openapi.json --meta none --output-path client"
        subprocess.run(
            [sys.executable, "-m", *generate.split()], cwd=tmp_path, check=True, capture_output=True, timeout=120
        )
        used = subprocess.run(
            [sys.executable, "-c", _USE, f"http://127.0.0.1:{port}{API}", secret],
            cwd=tmp_path,
            capture_output=True,
            timeout=120,
            text=True,
        )
    assert used.returncode == 0, used.stderr
    assert used.stdout.split() == ["3", "critical", "on-hold", "404"]


_FETCH = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"})
sys.stdout.buffer.write(urllib.request.urlopen(asked).read())
"""
_USE = """
import sys
from client import AuthenticatedClient
from client.api.studies import find_studies, hold_study, read_study, read_worklist
from client.models import HoldBody, WorklistPart

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2]) as client:
    listed = read_worklist.sync(client=client, limit=10)
    first = listed.studies[0]
    assert first.due_at.tzinfo is not None
    print(len(listed.studies), first.priority.value)
    found = find_studies.sync(client=client, accession_number=first.accession_number)
    assert [one.study_id for one in found.studies] == [first.study_id]
    done = hold_study.sync(first.study_instance_uid, client=client, body=HoldBody(reason="a question"))
    assert done.study.id == first.study_id
    held = read_worklist.sync(client=client, show=WorklistPart.ON_HOLD)
    assert first.study_id in [one.study_id for one in held.studies]
    print("on-hold", read_study.sync_detailed("999", client=client).status_code.value)
"""
