"""The page for users shows what really arrives."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC
from pathlib import Path

from config.settings import Settings
from tests.workers.fhir.studies import study
from tests.workers.fhir.test_resources import links, stored
from workers.fhir.resources import Naming, algorithm_device, algorithms, transaction
from workers.fhir.study_report import read_study_report

PAGE = Path("docs/fhir.md").read_text(encoding="utf-8")


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        given = block.replace("/run/secrets/", f"{tmp_path}/").replace(f"{tmp_path}/ehr", f"{tmp_path}/token")
        (destination,) = Settings.model_validate(tomllib.loads(given)).destinations
        assert destination.kind == "fhir"


def test_the_examples_are_what_arrives(tmp_path: Path) -> None:
    made = study(tmp_path)
    report = read_study_report(made.summary, {str(made.report.SOPInstanceUID): made.report}, UTC)
    naming = Naming("2.25", ("1.2.276.0.76.3.1",))
    entries = transaction(report, links(report), naming, stored(report))["entry"]
    _, not_analysed, finding, _, document = (entry["resource"] for entry in entries)
    # The server numbers them; here they are numbered in their order.
    numbered = {entry["fullUrl"]: f"Observation/{number}" for number, entry in enumerate(entries, 11)}
    document["result"] = [{"reference": numbered[each["reference"]]} for each in document["result"]]
    device = algorithm_device(report.header, naming, algorithms(report)[0], {"reference": "Device/1"})
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    assert shown == [document, finding, not_analysed, device]
