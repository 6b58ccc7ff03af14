"""What happens to the folder of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def store_away(folder: Path) -> Iterator[None]:
    """Leave an empty folder in the place of ``folder`` meanwhile, as ``umount`` of its file system does."""
    aside = folder.with_name(f"{folder.name}.away")
    folder.rename(aside)
    folder.mkdir()
    try:
        yield
    finally:
        for path in folder.iterdir():
            path.rename(aside / f"hidden-{path.name}")
        folder.rmdir()
        aside.rename(folder)
