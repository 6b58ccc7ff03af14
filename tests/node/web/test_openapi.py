"""The API against its own description: Schemathesis finds no server error and no answer that is not described."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from db.user_tables import Role
from node.web.api import OPERATIONS
from node.web.openapi import describe
from tests.node.web.conftest import Site

CHECKS = (not_a_server_error, status_code_conformance, response_schema_conformance)


@pytest.mark.slow
@pytest.mark.hypothesis
def test_no_request_that_the_description_allows_or_forbids_breaks_the_node(site: Site) -> None:
    _, secret = site.services.accounts.add_token("fuzz", Role.ADMIN, site.clock.now, actor="ada")
    headers = {"authorization": f"Bearer {secret}"}
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", site.app, headers=headers)
    tested = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except ValueError:
                continue

            @settings(
                max_examples=25,
                deadline=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @_given(strategy)
            def run(case: schemathesis.Case) -> None:
                nonlocal tested
                case.call_and_validate(headers=headers, checks=CHECKS)
                tested += 1

            run()
    assert tested > 20 * len(OPERATIONS)


def _given(strategy):  # type: ignore[no-untyped-def]
    from hypothesis import given

    return given(case=strategy)


def test_every_operation_is_described_with_its_answers() -> None:
    document = describe(OPERATIONS)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(one.method, one.path.replace(":row}", "}").replace(":str}", "}")) for one in OPERATIONS}
    assert "not a medical device" in document["info"]["description"]
    assert document["security"] == [{"token": []}]
