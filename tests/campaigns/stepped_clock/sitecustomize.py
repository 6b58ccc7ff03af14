"""Makes the clock of each Python process that finds this folder in PYTHONPATH one that a campaign can set.

Python imports a module of this name at its start, before anything of the node has taken ``utc_now``. The file that
``CAMPAIGN_CLOCK`` names holds the seconds that the clock is ahead. (libfaketime, which would do without this, breaks
``clock_nanosleep`` of Python 3.11: ``time.sleep`` fails.)
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import workers.clock

_SHOWN = Path(os.environ["CAMPAIGN_CLOCK"])


def _stepped_now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=int(_SHOWN.read_text()))


workers.clock.utc_now = _stepped_now
