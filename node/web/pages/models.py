"""The page of a model: its state, its figures on this node, its card, and the form that changes its state."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.errors import RecordNotFoundError
from db.model_states import ModelState, model_history
from models.model_spec import Mode, ModelSpec
from node.monitoring.drift import Comparison, DriftReport, ScoreWeek, drift_report
from node.monitoring.drift_statistics import wilson
from node.monitoring.model_use import ModelInUse, models_of_node
from node.web.charts import Trend, histogram, scatter, trend
from node.web.middleware import RequestContext, whole_number
from node.web.translatable import gettext_noop

WEEKS = 12


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model of this node with its state and its numbers of findings."""

    use: ModelInUse
    findings: int
    positives: int

    @property
    def name(self) -> str:
        """Its name."""
        return self.use.spec.name

    @property
    def spec(self) -> ModelSpec:
        """Its specification from the manifest."""
        return self.use.spec

    @property
    def has_card(self) -> bool:
        """Whether it has a model card."""
        return self.spec.card is not None and self.spec.card.is_file()


def known_models(context: RequestContext) -> tuple[ShownModel, ...]:
    """All models of the registry with their numbers of findings."""
    services = context.services
    counted: dict[str, tuple[int, int]] = {}
    for row in services.statistics.models():
        findings, positives = counted.get(row.name, (0, 0))
        counted[row.name] = (findings + row.findings, positives + row.positives)
    used = models_of_node(services.settings.models, services.engine)
    return tuple(ShownModel(one, *counted.get(one.spec.name, (0, 0))) for one in used)


def show_model(context: RequestContext) -> Response:
    """The page of one model: state, weekly scores, verdicts and discrepancies, comparison, and model card."""
    name = str(context.request.path_params["name"])
    shown = next((model for model in known_models(context) if model.name == name), None)
    if shown is None:
        raise HTTPException(404)
    card = shown.spec.card
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else ""
    report = drift_report(context.services.counts, context.now, weeks=WEEKS, model=name)
    return context.page(
        "model.html",
        model=shown,
        card=text,
        report=report,
        series=label_series(report, (shown,)),
        comparisons=[(one, scatter(one.pairs)) for one in report.comparisons],
        history=model_history(context.services.engine, name),
        done=context.query("done"),
        on_hold=whole_number(context.query("on_hold")) or 0,
        cancelled=whole_number(context.query("cancelled")) or 0,
    )


def switch(context: RequestContext) -> Response:
    """Change the state of a model. The model's page shows the result."""
    name, state, reason = (
        str(context.request.path_params["name"]),
        context.field("state"),
        context.field("reason").strip(),
    )
    if state not in set(ModelState):
        raise HTTPException(400, gettext_noop("a state is active, shadow or off"))
    if not reason:
        raise HTTPException(400, gettext_noop("a reason is required"))
    try:
        switched = context.actions.switch_model(name, ModelState(state), reason)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    done = "switched" if switched.changed else "same"
    counts = f"on_hold={switched.on_hold}&cancelled={switched.cancelled}"
    return RedirectResponse(f"/system/models/{name}?done={done}&{counts}", 303)


def label_series(report: DriftReport, models: tuple[ShownModel, ...]) -> list[dict[str, object]]:
    """Charts of each label of each version over the weeks, the oldest first.

    ``in_shadow``: the manifest keeps the label in shadow.
    """
    shadow = {(model.name, label.name) for model in models for label in model.spec.labels if label.mode is Mode.SHADOW}
    series: dict[tuple[str, str, str], list[ScoreWeek]] = {}
    for one in reversed(report.scores):
        series.setdefault((one.model, one.version, one.label), []).append(one)
    order = list(reversed(report.weeks))
    return [
        {
            "model": model,
            "version": version,
            "label": label,
            "in_shadow": (model, label) in shadow,
            "latest": weeks[-1],
            "share": trend(order, {one.week: (one.share, one.share_low, one.share_high) for one in weeks}),
            "scores": histogram(weeks[-1].histogram, _together(weeks[:-1])),
        }
        for (model, version, label), weeks in sorted(series.items())
    ]


def image_trends(report: DriftReport) -> list[tuple[str, Trend]]:
    """Charts of the images of each week: the share not analysed, and brightness and contrast with quartiles."""
    order = list(reversed(report.weeks))
    shares = {one.week: (one.not_analysed_share, one.not_analysed_low, one.not_analysed_high) for one in report.images}
    made = [("Not analysed, 95 %", trend(order, shares))]
    for name in ("brightness", "contrast"):
        values = {
            week.week: (one.median, one.low, one.high)
            for week in report.images
            for one in week.measures
            if one.name == name and one.median is not None and one.low is not None and one.high is not None
        }
        if values:
            made.append((f"{name}, median and quartiles", trend(order, values)))
    return made


def _together(weeks: list[ScoreWeek]) -> tuple[int, ...]:
    return tuple(sum(counts) for counts in zip(*(week.histogram for week in weeks), strict=True)) if weeks else ()


@dataclass(frozen=True, slots=True)
class VerdictTotal:
    """Readers' verdicts on a label over all weeks: their number, and the share accepted with its interval."""

    total: int
    share: tuple[float, float, float]


def verdict_totals(report: DriftReport) -> dict[tuple[str, str, str], VerdictTotal]:
    """Readers' verdicts by model, version and label."""
    counted: dict[tuple[str, str, str], tuple[int, int]] = {}
    for one in report.verdicts:
        key = (one.model, one.version, one.label)
        accepted, total = counted.get(key, (0, 0))
        counted[key] = (accepted + one.accepted, total + one.accepted + one.modified + one.rejected)
    return {
        key: VerdictTotal(total, (accepted / total, *wilson(accepted, total)))
        for key, (accepted, total) in counted.items()
        if total
    }


def kappa_category(comparison: Comparison) -> str:
    """Category of Cohen's kappa (Landis and Koch 1977)."""
    if comparison.kappa is None:
        return "not defined"
    for limit, category in ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair")):
        if comparison.kappa > limit:
            return category
    return "slight"
