"""How Pleura identifies itself in associations and files (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

IMPLEMENTATION_CLASS_UID = "2.25.107145334108679434666634330663974283395"
IMPLEMENTATION_VERSION_NAME = "PLEURA"
