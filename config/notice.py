"""What every output says to whoever reads it."""

from __future__ import annotations

NOTICE = "Research use only. Pleura is not a medical device."
"""In objects for a PACS stands one for which their attributes have room (:mod:`workers.results.header`)."""
