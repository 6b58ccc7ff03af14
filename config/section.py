"""What every part of the settings, and every table of a manifest or recipe, shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=0, le=65535)]

TABLE = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
"""A table of a manifest or recipe: no unknown keys, no value of another type, descriptions from the docstrings."""


class Part(BaseModel):
    """A table of the configuration: frozen, with no unknown keys, its descriptions taken from its docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
