"""The workers as they are: ``python -m tests.workers.real_worker QUEUE CONFIG``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from config.settings import load
from workers.celery import run_worker

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    run_worker(load(Path(sys.argv[2])), sys.argv[1])
