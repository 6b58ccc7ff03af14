"""All routes of the admin page and its API with the least role that may use each: the only table of permissions."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

from db.user_tables import Role
from node.web import api, api_documentation
from node.web.api_app import Operation, Tag
from node.web.middleware import Endpoint
from node.web.pages import (
    audit,
    erasing,
    login,
    models,
    openid,
    probes,
    study,
    system,
    try_it,
    users,
    worklist,
    worklist_bulk,
    worklist_filters,
)
from node.web.translatable import gettext_noop

STUDY = "/studies/{study:row}"
API = "/api/v1"
API_STUDY = "/studies/{study}"


class RowNumber(Convertor[int]):
    """A row number in a path: at most as many digits as the largest row number of the database."""

    regex = "[0-9]{1,10}"

    def convert(self, value: str) -> int:
        """Parse a row number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Format a row number."""
        return str(value)


register_url_convertor("row", RowNumber())


def page_endpoints(upload_bytes: int) -> tuple[Endpoint, ...]:
    """The routes of pages and probes. ``upload_bytes``: maximum size of a file for "Try it"."""
    viewer, radiologist, admin = Role.VIEWER, Role.RADIOLOGIST, Role.ADMIN
    return (
        Endpoint("GET", "/healthz", probes.alive, None, probe=True),
        Endpoint("GET", "/readyz", probes.ready, None, probe=True),
        Endpoint("GET", "/metrics", probes.metrics, None, probe=True),
        Endpoint("GET", "/login", login.show_login, None),
        Endpoint("POST", "/login", login.log_in, None),
        Endpoint("GET", "/login/openid", openid.begin, None, at_once=8),
        Endpoint("GET", "/login/openid/callback", openid.finish, None, at_once=8),
        Endpoint("POST", "/logout", login.log_out, viewer),
        Endpoint("GET", "/account", login.show_account, viewer),
        Endpoint("POST", "/account", login.change_password, viewer),
        Endpoint("POST", "/account/preferences", login.set_preferences, viewer),
        Endpoint("GET", "/", worklist.show_worklist, viewer, gettext_noop("Worklist")),
        Endpoint("GET", "/worklist.csv", worklist_bulk.export, viewer),
        Endpoint("POST", "/worklist/change", worklist_bulk.change, radiologist),
        Endpoint("POST", "/worklist/filters", worklist_filters.save, viewer),
        Endpoint("POST", "/worklist/filters/{filter:row}/delete", worklist_filters.remove, viewer),
        Endpoint("GET", "/events", worklist.stream_changes, viewer),
        Endpoint("GET", STUDY, study.show_study, viewer),
        Endpoint("GET", STUDY + "/history", study.show_history, viewer),
        Endpoint("GET", STUDY + "/images/{instance:row}.png", study.picture, viewer),
        Endpoint("GET", STUDY + "/results/{result:row}.dcm", study.download, radiologist),
        Endpoint("GET", STUDY + "/results/{result:row}/segments/{segment:row}.png", study.overlay, viewer),
        Endpoint("POST", STUDY + "/findings/{finding:row}", study.give_feedback, radiologist),
        Endpoint("GET", STUDY + "/erase", erasing.show_plan, admin),
        Endpoint("POST", STUDY + "/erase", erasing.ask, admin),  # before the actions, which less may use
        Endpoint("POST", STUDY + "/{action:str}", study.act, radiologist),
        Endpoint("GET", "/try", try_it.show_form, radiologist, gettext_noop("Try it")),
        Endpoint("POST", "/try", try_it.run_trial, radiologist, body_limit=upload_bytes + 64 * 1024, at_once=3),
        Endpoint("GET", "/try/{key:str}", try_it.show_trial, radiologist),
        Endpoint("GET", "/try/{key:str}/image.png", try_it.trial_picture, radiologist),
        Endpoint("GET", "/try/{key:str}/findings/{finding:row}.png", try_it.trial_overlay, radiologist),
        Endpoint("GET", "/system", system.show_system, radiologist, gettext_noop("System")),
        Endpoint("GET", "/system/models/{name:str}", models.show_model, radiologist),
        Endpoint("POST", "/system/models/{name:str}/state", models.switch, admin),
        Endpoint("POST", "/system/destinations/{name:str}/echo", system.call_destination, admin),
        Endpoint("POST", "/system/destinations/{name:str}/test", system.send_test_object, admin),
        Endpoint("POST", "/system/problems/retry", system.retry_problem, admin),
        Endpoint("POST", "/system/notifications/{name:str}/again", system.send_notifications_again, admin),
        Endpoint("GET", "/users", users.show_users, admin, gettext_noop("Users")),
        Endpoint("POST", "/users", users.add_user, admin),
        Endpoint("POST", "/users/{user:row}", users.change_user, admin),
        Endpoint("POST", "/tokens", users.add_token, admin),
        Endpoint("POST", "/tokens/{token:row}/revoke", users.revoke_token, admin),
        Endpoint("GET", "/audit", audit.show_audit, admin, gettext_noop("Audit")),
        Endpoint("GET", "/audit/export", audit.export_audit, admin),
        Endpoint("GET", API + "/docs", api_documentation.show_page, viewer),
        Endpoint("GET", API + "/openapi.json", api_documentation.show_document, viewer, api=True),
    )


def api_operations() -> tuple[Operation, ...]:
    """The operations of the API; paths are below :data:`API`."""
    viewer, radiologist, admin = Role.VIEWER, Role.RADIOLOGIST, Role.ADMIN
    return (
        Operation("GET", "/worklist", api.read_worklist, viewer, Tag.STUDIES),
        Operation("GET", "/studies", api.find_studies, viewer, Tag.STUDIES),
        Operation("GET", API_STUDY, api.read_study, viewer, Tag.STUDIES),
        Operation("POST", API_STUDY + "/priority", api.set_priority, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/hold", api.hold_study, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/release", api.release_study, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/reported", api.mark_reported, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/unreported", api.mark_unreported, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/jobs/{job}/retry", api.retry_job, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/deliveries/{delivery}/resend", api.resend_delivery, radiologist, Tag.STUDIES),
        Operation("POST", API_STUDY + "/findings/{finding}/feedback", api.give_feedback, radiologist, Tag.STUDIES),
        Operation("GET", API_STUDY + "/erasure", api.read_erasure, admin, Tag.STUDIES),
        Operation("POST", API_STUDY + "/erase", api.erase_study, admin, Tag.STUDIES),
        Operation("GET", "/system", api.read_system, radiologist, Tag.NODE),
        Operation("GET", "/problems", api.read_problems, radiologist, Tag.NODE),
        Operation("POST", "/problems/retry", api.retry_problems, admin, Tag.NODE),
        Operation("GET", "/drift", api.read_drift, radiologist, Tag.MODELS),
        Operation("GET", "/models", api.read_models, radiologist, Tag.MODELS),
        Operation("POST", "/models/{name}/state", api.switch_model, admin, Tag.MODELS),
        Operation("GET", "/audit", api.read_audit, admin, Tag.NODE),
    )
