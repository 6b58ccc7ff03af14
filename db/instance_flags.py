"""What is special about a received instance: the words of ``instances.flag``; empty for an ordinary one."""

from __future__ import annotations

COMPARE = "compare"
"""Its SOP Instance UID was here already, in other bytes: a worker sees whether it is the same."""

REPEAT = "repeat"
"""An earlier one in another encoding or with a router's additions. It is not eligible with this code."""

CONFLICT = "conflict"
"""It differs from an earlier one with the same SOP Instance UID."""

REPLACED = "replaced"
"""A person has let a newer one with the same SOP Instance UID go on: this one counts no more, and is
not eligible with this code.
"""

OWN = "own"
"""It is a result of this node that came back."""

OTHER_PATIENT = "patient"
"""It names another patient than its study."""

NOT_COUNTED = (COMPARE, REPEAT, REPLACED, OWN)
"""An instance with one of these flags is no image of its study of its own."""
