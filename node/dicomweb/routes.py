"""All routes of the DICOMweb server with the role that each needs: the only table of its permissions."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

from db.user_tables import Role
from node.dicomweb.admission import Endpoint
from node.dicomweb.store import store

ROOT = "/dicom-web"
STUDY = "/studies/{study:uid}"


class UidConvertor(Convertor[str]):
    """A UID in a path (PS3.5 9.1)."""

    regex = "[0-9.]{1,64}"

    def convert(self, value: str) -> str:
        """Parse a UID."""
        return value

    def to_string(self, value: str) -> str:
        """Format a UID."""
        return value


register_url_convertor("uid", UidConvertor())


def endpoints() -> tuple[Endpoint, ...]:
    """The routes; paths are below :data:`ROOT`."""
    sender = Role.SENDER
    return (
        Endpoint("POST", "/studies", store, sender),
        Endpoint("POST", STUDY, store, sender),
    )
