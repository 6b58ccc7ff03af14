"""How many images each routing rule decided lately."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Connection, func, select, type_coerce

from db.tables import Instance


def images_by_rule(connection: Connection, since: datetime) -> dict[str, tuple[int, bool]]:
    """Images received since then by the rule that decided them, and whether it kept them from being analysed.

    The rule is empty for images that no rule matched. Images that were not eligible, or came while there were no
    rules, are not counted.
    """
    decision = type_coerce(Instance.route, JSON)
    rule, excluded = decision["rule"].as_string(), decision["excluded"].as_string() != ""
    query = (
        select(rule, excluded, func.count())
        .where(Instance.received_at >= since, rule.is_not(None))
        .group_by(rule, excluded)
        .order_by(rule)
    )
    found: dict[str, tuple[int, bool]] = {}
    for name, is_excluded, count in connection.execute(query):
        found[name] = (found.get(name, (0, False))[0] + count, bool(is_excluded))
    return found
