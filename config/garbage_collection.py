"""Garbage collection of a process that runs for weeks."""

from __future__ import annotations

import gc


def keep_what_is_loaded() -> None:
    """Call it once a process has loaded what it works with: modules, tables of the standard, networks.

    All of it stays to the end. Python's collection of long-lived objects need not examine it each time then, which
    stops every thread meanwhile: 60 ms in the middle of an answer of the page.
    """
    gc.collect()
    gc.freeze()
