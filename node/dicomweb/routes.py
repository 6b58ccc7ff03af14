"""All routes of the DICOMweb server with the role that each needs: the only table of its permissions."""

from __future__ import annotations

from functools import partial

from starlette.convertors import Convertor, register_url_convertor

from db.queries.own_results import Level
from db.user_tables import Role
from node.dicomweb.request_context import Endpoint
from node.dicomweb.retrieve import bulk_data, frames, metadata, rendered, retrieve
from node.dicomweb.search import search
from node.dicomweb.store import store

STUDY = "/studies/{study:uid}"
SERIES = STUDY + "/series/{series:uid}"
INSTANCE = SERIES + "/instances/{instance:uid}"


class UidConvertor(Convertor[str]):
    """A UID in a path (PS3.5 9.1)."""

    regex = "[0-9.]{1,64}"

    def convert(self, value: str) -> str:
        """Parse a UID."""
        return value

    def to_string(self, value: str) -> str:
        """Format a UID."""
        return value


class FramesConvertor(UidConvertor):
    """Frame numbers in a path (PS3.18 10.4.1.1.6)."""

    regex = "[0-9]{1,5}(?:,[0-9]{1,5}){0,99}"


register_url_convertor("uid", UidConvertor())
register_url_convertor("frames", FramesConvertor())


def endpoints() -> tuple[Endpoint, ...]:
    """The routes; paths are below :data:`node.dicomweb.request_context.ROOT`."""
    sender, viewer, radiologist = Role.SENDER, Role.VIEWER, Role.RADIOLOGIST
    studies, series, instances = (partial(search, level) for level in (Level.STUDY, Level.SERIES, Level.IMAGE))
    return (
        Endpoint("POST", "/studies", store, sender),
        Endpoint("POST", STUDY, store, sender),
        Endpoint("GET", "/studies", studies, viewer),
        Endpoint("GET", "/series", series, viewer),
        Endpoint("GET", "/instances", instances, viewer),
        Endpoint("GET", STUDY + "/series", series, viewer),
        Endpoint("GET", STUDY + "/instances", instances, viewer),
        Endpoint("GET", SERIES + "/instances", instances, viewer),
        # What holds whole objects is for whoever may download them from the admin page.
        Endpoint("GET", STUDY, retrieve, radiologist),
        Endpoint("GET", SERIES, retrieve, radiologist),
        Endpoint("GET", INSTANCE, retrieve, radiologist),
        Endpoint("GET", STUDY + "/metadata", metadata, radiologist),
        Endpoint("GET", SERIES + "/metadata", metadata, radiologist),
        Endpoint("GET", INSTANCE + "/metadata", metadata, radiologist),
        Endpoint("GET", INSTANCE + "/bulkdata", bulk_data, radiologist),
        Endpoint("GET", INSTANCE + "/frames/{frames:frames}", frames, radiologist),
        Endpoint("GET", INSTANCE + "/frames/{frames:frames}/rendered", rendered, radiologist),
        Endpoint("GET", INSTANCE + "/rendered", rendered, radiologist),
    )
