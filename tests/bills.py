"""The schema of software bills of materials, CycloneDX 1.6."""

from __future__ import annotations

import json
from typing import Any


def faults_of_bill(bill: dict[str, Any]) -> str:
    """What the schema says against a bill; empty where it says nothing."""
    # Its grammars take a second and a half to import, in each process that collects the tests.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) or "")
