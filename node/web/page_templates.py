"""The templates of the pages: one environment of Jinja for each language, with the filters of that language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from config.settings import Settings
from models.runtime.executor import device_name
from node.monitoring.remedies import remedy
from node.web import charts, formatting
from node.web.formatting import Formatting
from node.web.languages import LANGUAGES, Language
from workers.results.result_kinds import LABELS
from workers.triage import only_in_shadow

FOLDER = Path(__file__).parent / "templates"


class PageTemplates:
    """Makes the environment of a language when the first page asks for it."""

    def __init__(self, settings: Settings) -> None:
        """Show what ``settings`` say: time zone, whether names are hidden, AE title."""
        self._settings = settings
        self._made: dict[str, Environment] = {}

    def of(self, language: Language) -> Environment:
        """The environment of a language. Two threads may both make the first one: they are alike."""
        if language.tag not in self._made:
            self._made[language.tag] = _environment(self._settings, language)
        return self._made[language.tag]

    def formatting(self, language: Language) -> Formatting:
        """How values are written in a language."""
        return Formatting(language, self._settings.site.zone, self._settings.admin.hide_patient_names)


def _environment(settings: Settings, language: Language) -> Environment:
    written = PageTemplates(settings).formatting(language)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    install: Any = environment
    install.install_gettext_callables(written.catalogue.gettext, written.catalogue.ngettext, newstyle=True)
    environment.policies["ext.i18n.trimmed"] = True
    environment.filters.update(written.filters(), form_date=formatting.form_date, remedy=remedy, device=device_name)
    environment.globals.update(
        language=language,
        languages=tuple(LANGUAGES.values()),
        time_zone=settings.site.time_zone,
        age=written.age,
        area=written.area,
        since=written.since,
        only_in_shadow=only_in_shadow,
        progress=formatting.progress,
        stage_shares=charts.stage_shares,
        kind_labels=LABELS,
        upload_minutes=settings.admin.upload_minutes,
        ae_title=settings.listener.ae_title,
    )
    return environment
