"""The models: what each is, what becomes of its findings, how it has behaved here, and the switch."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.errors import RecordNotFoundError
from db.model_states import ModelState, model_history, model_states
from models.contract import Mode, ModelSpec
from models.manifest import ManifestError
from models.model_registry import UnknownModel, read_registry
from node.monitoring.drift import Comparison, ScoreWeek, Watch, watch
from node.monitoring.drift_statistics import wilson
from node.monitoring.model_use import ModelInUse, models_in_use
from node.web import actions
from node.web.charts import Trend, histogram, scatter, trend
from node.web.middleware import RequestContext

WEEKS = 12


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model of this node with its state, and what it has analysed here."""

    use: ModelInUse
    findings: int
    positives: int

    @property
    def name(self) -> str:
        """Its name."""
        return self.use.spec.name

    @property
    def spec(self) -> ModelSpec:
        """What its file defines."""
        return self.use.spec

    @property
    def has_card(self) -> bool:
        """Whether a card was written for it."""
        return self.spec.card is not None and self.spec.card.is_file()


def known_models(context: RequestContext) -> tuple[ShownModel, ...]:
    """Every model that could run; none where a manifest is wrong, which the checks of the system page tell."""
    settings = context.services.settings.models
    try:
        specs = read_registry(settings.folder, verify=False).specs
    except (ManifestError, UnknownModel, OSError):
        return ()
    counted: dict[str, tuple[int, int]] = {}
    for row in context.services.statistics.models():
        findings, positives = counted.get(row.name, (0, 0))
        counted[row.name] = (findings + row.findings, positives + row.positives)
    used = models_in_use(specs, settings, model_states(context.services.engine))
    return tuple(ShownModel(one, *counted.get(one.spec.name, (0, 0))) for one in used)


def show_model(context: RequestContext) -> Response:
    """One model: its state with the switch, weeks of scores and of agreement, the comparison, and its card."""
    name = str(context.request.path_params["name"])
    shown = next((model for model in known_models(context) if model.name == name), None)
    if shown is None:
        raise HTTPException(404)
    card = shown.spec.card
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else ""
    report = watch(context.services.counts, context.now, weeks=WEEKS, model=name)
    return context.page(
        "model.html",
        model=shown,
        card=text,
        report=report,
        series=label_series(report, (shown,)),
        comparisons=[(one, scatter(one.pairs)) for one in report.comparisons],
        history=model_history(context.services.engine, name),
        told=context.query("told"),
        on_hold=_count(context.query("on_hold")),
        cancelled=_count(context.query("cancelled")),
    )


def switch(context: RequestContext) -> Response:
    """The switch of the page. What it did is told on the model's page."""
    name, word, reason = (
        str(context.request.path_params["name"]),
        context.field("state"),
        context.field("reason").strip(),
    )
    if word not in set(ModelState):
        raise HTTPException(400, "a state is active, shadow or off")
    if not reason:
        raise HTTPException(400, "say why, for whoever finds it so")
    try:
        done = actions.switch_model(context, name, ModelState(word), reason)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    told = "switched" if done.changed else "same"
    return RedirectResponse(f"/system/models/{name}?told={told}&on_hold={done.on_hold}&cancelled={done.cancelled}", 303)


def _count(given: str) -> int:
    return int(given) if given.isascii() and given.isdigit() and len(given) < 8 else 0


def label_series(report: Watch, models: tuple[ShownModel, ...]) -> list[dict[str, object]]:
    """Each label of each version with its weeks, the oldest first, as charts.

    ``quiet`` are labels that their model's manifest itself keeps in shadow.
    """
    quiet = {(model.name, label.name) for model in models for label in model.spec.labels if label.mode is Mode.SHADOW}
    series: dict[tuple[str, str, str], list[ScoreWeek]] = {}
    for one in reversed(report.scores):
        series.setdefault((one.model, one.version, one.label), []).append(one)
    order = list(reversed(report.weeks))
    return [
        {
            "model": model,
            "version": version,
            "label": label,
            "quiet": (model, label) in quiet,
            "latest": weeks[-1],
            "share": trend(order, {one.week: (one.share, one.share_low, one.share_high) for one in weeks}),
            "scores": histogram(weeks[-1].histogram, _together(weeks[:-1])),
        }
        for (model, version, label), weeks in sorted(series.items())
    ]


def image_trends(report: Watch) -> list[tuple[str, Trend]]:
    """What the images of each week were like: the share not analysed, and brightness and contrast with quartiles."""
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
            made.append((f"{name.capitalize()}, median and quartiles", trend(order, values)))
    return made


def _together(weeks: list[ScoreWeek]) -> tuple[int, ...]:
    return tuple(sum(counts) for counts in zip(*(week.histogram for week in weeks), strict=True)) if weeks else ()


@dataclass(frozen=True, slots=True)
class VerdictTotal:
    """Readers' words on a label over all weeks: how many, and the share accepted with its interval."""

    total: int
    share: tuple[float, float, float]


def verdict_totals(report: Watch) -> dict[tuple[str, str, str], VerdictTotal]:
    """Readers' words by model, version and label."""
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


def alike(comparison: Comparison) -> str:
    """Cohen's kappa in a word (Landis and Koch 1977)."""
    if comparison.kappa is None:
        return "not defined"
    for limit, word in ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair")):
        if comparison.kappa > limit:
            return word
    return "slight"
