"""Derived UIDs: the same analysis gives the same UID, and different content gives a different UID."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass


def derive_uid(root: str, *parts: str) -> str:
    """Derive a UID under ``root`` from ``parts`` (PS3.5 9.1; under 2.25 a UUID-derived one, B.2).

    Parts are length-prefixed before they are hashed, so that ("ab", "c") and ("a", "bc") give different UIDs.
    """
    digest = hashlib.sha256(b"".join(_prefixed(part) for part in parts)).digest()
    if root == "2.25":
        # A UUID of version 8 (RFC 9562: custom), so that the integer is a well-formed UUID.
        return f"2.25.{uuid.UUID(int=_as_version_8(int.from_bytes(digest[:16], 'big'))).int}"
    room = 64 - len(root) - 1
    return f"{root}.{str(int.from_bytes(digest, 'big') + 1)[:room]}"


def _prefixed(part: str) -> bytes:
    data = part.encode("utf-8")
    return f"{len(data)}:".encode() + data


def _as_version_8(value: int) -> int:
    value = value & ~(0xF << 76) | (0x8 << 76)
    return value & ~(0x3 << 62) | (0x2 << 62)


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs of one analysis, all derived from the instance, the pipeline and the revision.

    ``uid(kind, part)`` is the UID of a part ("instance", "series", "tracking:pneumothorax", …) of a result kind.
    ``pipeline`` is the digest of the pipeline, so that a changed threshold changes every UID.
    """

    uid_root: str
    sop_instance_uid: str
    instance_digest: str
    pipeline: str
    revision: int

    def uid(self, kind: str, part: str = "instance") -> str:
        """UID of ``part`` of this analysis' result of ``kind``."""
        return derive_uid(
            self.uid_root, self.sop_instance_uid, self.instance_digest, self.pipeline, kind, str(self.revision), part
        )

    def tracking(self, model: str, label: str, lesion: int = 0) -> str:
        """Tracking Unique Identifier (0062,0021) of the finding ``label`` of ``model``, or of a lesion of it."""
        return self.uid("finding", f"tracking:{model}:{label}" + (f":lesion:{lesion}" if lesion else ""))
