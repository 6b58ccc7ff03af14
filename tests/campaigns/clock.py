"""A clock that is set: ``python -P -m tests.campaigns.clock --seed 1 --steps 8``.

Under load the clock of all processes of the node is set ahead and back, by minutes, hours and a day
(``stepped_clock/sitecustomize.py``); the monotonic clock goes on, as it does on a real machine. Whatever was answered
0x0000 must have its results at the end, once, and nothing may wait for a time that has lost its meaning.
"""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path
from random import Random

from tests.campaigns.chaos import sequence
from tests.campaigns.command import Say, run_counted
from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.whole_node import wait_and_count, whole_node

_STEPPED_CLOCK = Path(__file__).with_name("stepped_clock")
_DAY = 86_400
STEPS = (30, -30, 300, -300, 3 * 3600, -3 * 3600, _DAY, -_DAY)
"""Seconds ahead of the true time, drawn one after the other."""
_SENDERS = 2


def run(folder: Path, seed: int, steps: int, database: str, say: Say, finishing_seconds: float = 300) -> Outcome:
    """Run a campaign that sets the clock ``steps`` times."""
    random = Random(f"clock {seed}")
    drawn = sequence(random, STEPS, steps)
    outcome = Outcome(f"clock, {database}", seed)
    folder.mkdir(parents=True, exist_ok=True)
    shown = folder / "clock"
    _set(shown, 0)
    path = os.pathsep.join(filter(None, [str(_STEPPED_CLOCK), os.environ.get("PYTHONPATH", "")]))
    environment = {"CAMPAIGN_CLOCK": str(shown), "PYTHONPATH": path}
    with whole_node(folder / "run", database, environment=environment) as whole:
        modalities = Modalities([whole.node.port], (image(seed, number) for number in count()), _SENDERS, 0.6)
        modalities.start()
        ahead: list[int] = []
        for number in range(1, steps + 1):
            ahead.append(drawn[number - 1])
            say(f"step {number}/{steps}: {ahead[-1]:+d} s ({len(modalities.accepted)} accepted)")
            _set(shown, ahead[-1])
            time.sleep(random.uniform(2, 5))
        modalities.finish(120, stop=True)
        held, outcome.faults = wait_and_count(whole, [each.patient for each in modalities.accepted], finishing_seconds)
        if whole.database.days() < 2 and max(ahead) - min(ahead) > _DAY:
            outcome.faults.append("the node's clock was not set")
    outcome.figures = {
        "steps of the clock": steps,
        "farthest": f"{min(ahead)} s to +{max(ahead)} s",
        "images accepted": len(modalities.accepted),
        "objects sent again": held.sent_again,
    }
    return outcome


def _set(shown: Path, seconds: int) -> None:
    part = shown.with_suffix(".part")
    part.write_text(str(seconds))
    part.rename(shown)


if __name__ == "__main__":
    run_counted(__doc__, "steps", 8, "the clock is set so often", run)
