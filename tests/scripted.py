"""A database whose answers a test writes: for what a real one cannot easily be brought to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from db.audit import AuditEntry, write_entry
from db.database import Database, Step
from tests.rules import NO_RULES


class Scripted(Database):
    """Answers a repository's function by the method that ``answers`` names; any other is an error of the test. Entries
    of the audit trail are kept in ``audited``.
    """

    answers: ClassVar[Mapping[Callable[..., Any], str]]

    def __init__(self) -> None:
        self.rules = NO_RULES
        self.audited: list[AuditEntry] = []

    def read(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.answers[query])(*args, **kwargs)

    def write(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        if command is write_entry:
            return self.audited.append(*args)
        return getattr(self, self.answers[command])(*args, **kwargs)

    def write_all(self, steps: Sequence[Step]) -> list[Any]:
        return [self.write(command, *arguments) for command, arguments in steps]
