"""What the page and the API tell of the models, and the switch: by whom, why, and what it does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from config.notifications import Notifications as NotificationSettings
from config.notifications import Webhook
from config.routing import RoutingRule
from config.settings import Models
from config.triage import Triage
from db import assessments, deliveries, model_states, notifications
from db.assessments import Assessment, Statement
from db.database import Database
from db.model_states import AS_CONFIGURED, ModelState, Switch, model_history, set_model_state
from db.queries import study_details
from db.queries.problems import problems
from db.records import SimilarRecord
from db.states import DeliveryState
from db.study_rules import NotificationRules
from db.tables import Finding
from db.users import Accounts
from models.contract import ModelInput
from models.model_registry import read_registry
from models.model_spec import Mode
from node.monitoring.model_use import GATE, NOT_CONFIGURED, models_in_use
from node.monitoring.remedies import remedy
from node.web.app import create_app, create_services, load_image_predictor
from node.web.charts import histogram, nice_share, scatter, trend
from node.web.trials import Trials, TrialTools
from tests.commands import record_triage, study_facts
from tests.models.samples import classifier_graph, manifest, radiograph, ramp, written
from tests.node.web.conftest import CHEAP, NOW, Site, predict_pneumothorax, readers
from tests.node.web.demo import phantom
from tests.node.web.history import fill_weeks
from tests.rules import rules_that_notify
from workers.triage import decide

MODEL = "chest-classifier"
PNEUMOTHORAX = 3
API = "/api/v1"


def test_an_admin_switches_a_model_and_it_is_written_down(site: Site) -> None:
    client = site.logged_in("admin")
    done = client.post(f"/system/models/{MODEL}/state", data={"state": "off", "reason": "notifications on every rib"})
    assert done.status_code == 303
    message = client.get(done.headers["location"]).text
    assert "From the next image on this model is off" in message
    assert "notifications on every rib, by ada" in message
    assert site.services.database.read(model_states.current_states) == {MODEL: ModelState.OFF}
    (entry,) = [one for one in site.services.audit.entries(limit=5) if one.action == "switch model"]
    assert (entry.actor, entry.subject, entry.address) == ("ada", MODEL, "127.0.0.1")
    metrics = client.get("/metrics").text
    assert f'pleura_model_state{{model="{MODEL}",state="off"}} 1' in metrics
    assert f'pleura_model_state{{model="{MODEL}",state="active"}} 0' in metrics
    again = client.post(f"/system/models/{MODEL}/state", data={"state": "off", "reason": "again"})
    assert "The model was in that state already" in client.get(again.headers["location"]).text
    assert len(model_history(site.services.engine, MODEL)) == 1


def test_a_switch_tells_how_much_it_holds(site: Site) -> None:
    client = site.logged_in("admin")
    (delivery, *_) = site.services.database.read(study_details.study_detail, PNEUMOTHORAX).deliveries
    site.services.database.write(deliveries.requeue, delivery.id, "ada", "again", NOW)
    done = client.post(f"/system/models/{MODEL}/state", data={"state": "shadow", "reason": "on trial"})
    assert "1 delivery is on hold now" in client.get(done.headers["location"]).text
    on_hold = {one.id: one for one in site.services.database.read(study_details.study_detail, PNEUMOTHORAX).deliveries}[
        delivery.id
    ]
    assert on_hold.state is DeliveryState.ON_HOLD
    assert f"the model {MODEL} was put in shadow by ada" in client.get(f"/studies/{PNEUMOTHORAX}").text


@pytest.mark.parametrize(
    ("name", "form", "status"),
    [
        (MODEL, {"state": "sideways", "reason": "x"}, 400),
        (MODEL, {"state": "off", "reason": "  "}, 400),
        ("chest-gate", {"state": "off", "reason": "x"}, 404),
        ("nobody", {"state": "off", "reason": "x"}, 404),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused(site: Site, name: str, form: dict[str, str], status: int) -> None:
    assert site.logged_in("admin").post(f"/system/models/{name}/state", data=form).status_code == status
    assert site.services.database.read(model_states.current_states) == {}


def test_nobody_switches_without_the_token_of_the_form_or_the_role(site: Site) -> None:
    form = {"state": "off", "reason": "x"}
    client = site.logged_in("admin")
    del client.headers["x-csrf-token"]
    assert client.post(f"/system/models/{MODEL}/state", data=form).status_code == 403
    assert site.logged_in("radiologist").post(f"/system/models/{MODEL}/state", data=form).status_code == 403
    assert "Switch" not in site.logged_in("radiologist").get(f"/system/models/{MODEL}").text
    assert site.services.database.read(model_states.current_states) == {}


def test_the_same_by_the_api(site: Site) -> None:
    client = site.logged_in("admin")
    path = f"{API}/models/{MODEL}/state"
    assert client.post(path, json={"state": "off"}).status_code == 422
    assert client.post(f"{API}/models/nobody/state", json={"state": "off", "reason": "x"}).status_code == 404
    assert client.post(path, json={"state": "shadow", "reason": "on trial"}).json() == {
        "changed": True,
        "on_hold": 0,
        "cancelled": 0,
    }
    models = {one["name"]: one for one in client.get(f"{API}/models").json()["models"]}
    assert (models[MODEL]["state"], models[MODEL]["configured"]) == ("shadow", "active")
    assert models[MODEL]["switches"][0]["reason"] == "on trial"
    assert models["chest-gate"]["state"] == "gate"


def test_weeks_of_drift_on_the_pages_and_in_the_api(site: Site) -> None:
    fill_weeks(site.demo, NOW, a_week=13)
    client = site.logged_in("admin")
    system = client.get("/system").text
    for words in ("Model monitoring", "literature-densenet", "Globex", "Discrepancies", "a skin fold", "CPU"):
        assert words in system, words
    model = client.get(f"/system/models/{MODEL}").text
    for words in ("on the same", "kappa", "They differ on", "Not a medical device"):
        assert words in model, words
    report = client.get(f"{API}/drift?weeks=12&model={MODEL}").json()["report"]
    assert {one["model"] for one in report["scores"]} == {MODEL}
    assert report["comparisons"][0]["shadow"] == "literature-densenet"
    assert len(report["weeks"]) == 12
    assert client.get(f"{API}/drift?weeks=0").status_code == 422
    (unmatched,) = client.get(f"{API}/system").json()["assessments_unmatched"]
    assert unmatched["observer"] == "Nguyen, Linh"


def test_similar_cases_and_foreign_assessments_on_the_study_s_page(site: Site) -> None:
    client = site.logged_in("viewer")
    assert "Similar cases" not in client.get(f"/studies/{PNEUMOTHORAX}").text
    case = SimilarRecord("index/0042", "pneumothorax", 0.1234)
    with site.services.engine.begin() as connection:
        connection.execute(update(Finding).where(Finding.study_id == PNEUMOTHORAX).values(similar=(case,)))
    found = Assessment("1.2.3.4", "Nguyen^Linh", (Statement("reject", comment="<b>skin fold</b>"),))
    instance = site.services.database.read(study_details.study_detail, PNEUMOTHORAX).instances[0].id
    site.services.database.write(assessments.record, found, instance, NOW)
    text = client.get(f"/studies/{PNEUMOTHORAX}").text
    assert "index/0042" in text
    assert "0.123" in text
    assert "Nguyen, Linh in another system" in text
    assert "<b>skin" not in text
    shown = client.get(f"{API}/studies/{PNEUMOTHORAX}").json()
    assert shown["findings"][0]["record"]["similar"] == [
        {"reference": "index/0042", "label": "pneumothorax", "distance": 0.1234}
    ]


def test_what_becomes_of_a_model() -> None:
    specs = {spec.name: spec for spec in read_registry(verify=False)}
    classifier, gate = specs[MODEL], specs["chest-gate"]

    def state(configured: Models, switched: ModelState | None = None, mode: Mode = Mode.ACTIVE) -> tuple[str, str]:
        switch = Switch(MODEL, AS_CONFIGURED, switched, "", "ada", NOW) if switched else None
        (one,) = models_in_use([replace(classifier, mode=mode)], configured, {MODEL: switch} if switch else {})
        return one.configured, one.state

    assert state(Models()) == ("active", "active")
    assert state(Models(active=(), shadow=(MODEL,))) == ("shadow", "shadow")
    assert state(Models(active=(), shadow=(MODEL,)), ModelState.ACTIVE) == ("shadow", "active")
    assert state(Models(), ModelState.OFF) == ("active", "off")
    assert state(Models(), ModelState.ACTIVE, Mode.SHADOW) == ("shadow", "shadow")
    assert state(Models(active=())) == (NOT_CONFIGURED, NOT_CONFIGURED)
    assert [one.configured for one in models_in_use([gate, classifier], Models(), {})] == ["active", GATE]


def test_charts_are_points_in_their_boxes() -> None:
    weeks = ["2026-W01", "2026-W02", "2026-W03"]
    chart = trend(weeks, {"2026-W01": (0.1, 0.05, 0.2), "2026-W03": (0.3, 0.2, 0.45)})
    assert (chart.top, len(chart.marks), chart.first, chart.last) == (0.5, 2, "2026-W01", "2026-W03")
    assert (chart.marks[0].x, chart.marks[0].y) == (100, 120)
    assert chart.marks[1].low > chart.marks[1].y > chart.marks[1].high
    assert trend(weeks, {}).marks == ()
    bars = histogram((1, 0, 3), (2, 2, 0))
    assert [round(bar.height) for bar in bars.bars] == [38, 0, 112]
    assert bars.before.startswith("0.0,75.0")
    assert histogram((), ()).bars == ()
    assert scatter([]) == ()
    assert [nice_share(value) for value in (0.004, 0.03, 0.21, 0.9)] == [0.01, 0.05, 0.5, 1.0]


def test_the_page_of_a_model_that_is_gone(site: Site) -> None:
    assert site.logged_in("admin").get("/system/models/nobody").status_code == 404


def test_an_image_that_is_tried_meets_the_models_as_they_are_switched_now(site: Site) -> None:
    settings = site.settings.model_copy(update={"models": Models(gate="", active=(MODEL,))})
    predict = load_image_predictor(settings, site.services.database)
    image = ModelInput(phantom(), "1.2.3")
    assert any(finding.mode is Mode.ACTIVE for finding in predict(image, None).findings)
    set_model_state(site.services.engine, MODEL, ModelState.OFF, actor="ada", reason="x", now=NOW)
    assert all(finding.mode is Mode.SHADOW for finding in predict(image, None).findings)


def test_an_image_that_is_tried_meets_the_models_that_a_routing_rule_chooses(site: Site, tmp_path: Path) -> None:
    """What would replace a finding does not run then, so the finding is sent: not every model answers, less some."""
    for name, line in (("whether", ""), ("better", 'replaces = "whether"')):
        file = manifest(classifier_graph(tmp_path / f"{name}.onnx"), name)
        file.write_text(file.read_text().replace("localised = true", f"localised = true\n{line}", 1))
    models = Models(gate="", lungs="", folder=tmp_path, active=("whether", "better"))
    chosen = (RoutingRule(name="one", modalities=("CR",), models=("whether",)),)
    settings = site.settings.model_copy(update={"models": models, "routing": chosen})
    tools = TrialTools(readers().uploads, lambda: load_image_predictor(settings, site.services.database), settings)
    image = radiograph(ramp(600, 600, 12), BodyPartExamined="CHEST", StudyInstanceUID="1.2", SeriesInstanceUID="1.3")
    file = written(image, tmp_path / "a.dcm")
    trial = Trials(tools).run(file.read_bytes(), "a.dcm", "ada", NOW)
    assert {(each.label, each.shadow) for each in trial.findings} == {("lung_opacity", False), ("other", True)}
    assert trial.route is not None
    assert trial.route.models == (("whether", "1.0.0"),)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("the peer cannot be reached, or aborted the association", "Check that the peer runs"),
        ("the model x was switched off by ada after this was made", "Run the job again without that model"),
        (
            "the destination took it and does not hold it (no such object), though it was sent twice",
            "Find out from the dest",
        ),
        ("the peer cannot store it now: status 0x0110 (processing failure)", "The peer could not store it"),
        ("the server answers with status 500", "The peer could not store it"),
        ("something else", "Retry once"),
    ],
)
def test_what_to_do_about_an_error(error: str, advice: str) -> None:
    assert remedy(error).startswith(advice)


def test_one_outage_is_one_problem_with_its_address_and_is_retried_as_one(site: Site) -> None:
    client = site.logged_in("admin")
    page = client.get("/system").text
    found = site.services.database.read(problems)
    outage = next(one for one in found if one.entity == "delivery" and one.count > 1)
    assert page.count('class="failure"') == len(found)
    assert f"{outage.count} deliveries to {outage.destination}" in page
    where = next(one for one in site.settings.destinations if one.name == outage.destination)
    assert f"{where.ae_title} at {where.host}:{where.port}" in page
    form = {"entity": "delivery", "destination": outage.destination, "cause": outage.cause}
    assert client.post("/system/problems/retry", data={**form, "cause": ""}).status_code == 400
    answer = client.post("/system/problems/retry", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/system?retried={outage.count}#problems")
    assert set(site.services.database.read(problems)) == set(found) - {outage}
    assert f"{outage.count} are tried again now" in client.get(answer.headers["location"]).text
    assert "Retry all" in client.get("/audit").text
    assert site.logged_in("radiologist").post("/system/problems/retry", data=form).status_code == 403


def test_notifies_are_counted_and_what_was_failed_is_sent_again(site: Site) -> None:
    webhook = Webhook(enabled=True, url="http://127.0.0.1:1/", secret=SecretStr("s" * 32))
    settings = site.settings.model_copy(update={"notifications": NotificationSettings(webhook=webhook)})
    engine, database = (
        site.services.engine,
        Database(site.services.engine, rules_that_notify(NotificationRules(("webhook",)))),
    )
    services = create_services(
        settings, database, engine, task_queue=site.task_queue, clock=site.clock,
        load_image_predictor=lambda: predict_pneumothorax,
        echo=lambda _: None, send_test_object=site.services.send_test_object,
        accounts=Accounts(engine, CHEAP), readers=readers(),
    )  # fmt: skip
    app = create_app(services)
    study = study_facts(database, PNEUMOTHORAX)
    record_triage(database, PNEUMOTHORAX, replace(decide(study, Triage(), NOW), reason="anew"), NOW)
    (notification,) = database.read(notifications.waiting, "webhook", NOW)
    assert database.write(notifications.claim, notification, "w", NOW, timedelta(minutes=1)) is not None
    database.write(notifications.fail, notification, "w", "connection refused", NOW)
    client = replace(site, app=app).logged_in("admin")
    assert "Critical-result notifications" in client.get("/system").text
    assert client.get(f"{API}/system").json()["notifications"] == {"webhook": {"failed": 1}}
    assert "notification on pneumothorax by webhook: connection refused" in client.get(f"/studies/{PNEUMOTHORAX}").text
    assert 'pleura_notifications{channel="webhook",state="failed"} 1' in client.get("/metrics").text
    assert client.post("/system/notifications/email/again").status_code == 404
    assert client.post("/system/notifications/webhook/again").status_code == 303
    assert database.read(notifications.waiting, "webhook", NOW) == (notification,)
    assert site.services.audit.entries(limit=1)[0].action == "retry notifications"


def test_a_study_that_only_models_in_shadow_analysed_does_not_read_like_a_negative(site: Site) -> None:
    client = site.logged_in("viewer")
    assert "In shadow only" not in client.get("/").text
    with site.services.engine.begin() as connection:
        connection.execute(update(Finding).where(Finding.study_id == PNEUMOTHORAX).values(shadow=True))
    text = client.get("/?q=Okafor").text
    assert "In shadow only" in text
    assert "Every model is off or in shadow" in text
    assert "No finding above its threshold" not in text
    assert "In shadow only" in client.get(f"/studies/{PNEUMOTHORAX}").text
