"""What a campaign has done and found, as JSON, as text and as a row of ``docs/reliability.md``.

``python -P -m tests.campaigns.outcome`` writes the table there, of the JSON files in ``tests/campaigns/results``.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
RESULTS = Path(__file__).with_name("results")
BEGIN, END = "<!-- table of results: begin -->", "<!-- table of results: end -->"

_LONGEST = 240

Figure = int | float | str


@dataclass
class Outcome:
    """One run of a campaign. ``figures``: what was done and counted, in the order of telling; ``faults``: one sentence
    for each thing that must not be.
    """

    campaign: str
    seed: int
    figures: dict[str, Figure] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    python: str = field(default_factory=platform.python_version)

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{self.campaign}, seed {self.seed}, {self.seconds:.0f} s"]
        lines += [f"  {name}: {value}" for name, value in self.figures.items()]
        lines += [f"  FAULT: {fault}" for fault in self.faults]
        return "\n".join([*lines, f"  {len(self.faults)} faults"])

    def row(self) -> str:
        """One row of the Markdown table whose head is :data:`HEAD`."""
        figures = "; ".join(f"{name}: {value}" for name, value in self.figures.items())
        found = "none" if not self.faults else "; ".join(map(_in_short, self.faults[:5]))
        return f"| {self.campaign} | {self.date} | {self.seed} | {self.seconds:.0f} s | {figures} | {found} |"

    def write(self, path: Path) -> None:
        """Write JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _in_short(fault: str) -> str:
    """A fault as a cell of a table can say it: one line, of a traceback its end."""
    sentence = " ".join(fault.split()).replace("|", "/")
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST // 2]} … {sentence[-_LONGEST // 2 :]}"


HEAD = """| campaign | date | seed | took | done and counted | faults |
| --- | --- | --- | --- | --- | --- |"""


def read_outcome(path: Path) -> Outcome:
    """An outcome that :meth:`Outcome.write` has written."""
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def table(folder: Path) -> str:
    """The Markdown table of every outcome in ``folder``, in the order of the files' names."""
    return "\n".join([HEAD, *(read_outcome(path).row() for path in sorted(folder.glob("*.json")))])


def fill_in(document: str, rows: str) -> str:
    """``document`` with the table between its two marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def main() -> None:
    """Write the table of ``tests/campaigns/results`` into ``docs/reliability.md``."""
    DOCUMENT.write_text(fill_in(DOCUMENT.read_text(encoding="utf-8"), table(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
