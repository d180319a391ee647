"""Fills the page's template. Everything is escaped by default: proofs and critiques are untrusted text."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from proofloop.errors import ConfigError, install_hint
from proofloop.report import figures, strips, wording
from proofloop.report.curriculum import CurriculumData, curriculum_verdict
from proofloop.report.data import KINDS, ReportData
from proofloop.report.runfile import run_file

if TYPE_CHECKING:
    import jinja2

FILTERS = {
    "count": wording.count,
    "share": wording.share,
    "money": wording.money,
    "duration": wording.duration,
    "day": wording.day,
    "score": wording.score,
    "version": wording.version,
    "defects": wording.defects,
}


def render(data: ReportData | CurriculumData) -> str:
    """The whole page. Raises ConfigError where Jinja is not installed."""
    if isinstance(data, CurriculumData):
        return environment().get_template("curriculum.html.jinja").render(**_shell(), **_curriculum_names(data))
    return environment().get_template("page.html.jinja").render(**_shell(), **_names(data))


def style() -> str:
    """How our pages look."""
    return files("proofloop.report").joinpath("page.css").read_text("utf-8")


def environment(*packages: str) -> jinja2.Environment:
    """Finds the templates of these packages, then the report's. Raises ConfigError where Jinja is not installed."""
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("a report needs Jinja, which is not installed", install_hint("[report]")) from error
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in (*packages, "proofloop.report")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _shell() -> dict[str, Any]:
    """What both templates may use."""
    return {
        "style": style(),
        "figures": figures,
        "wording": wording,
        "release": installed_version("proofloop"),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
    }


def _curriculum_names(data: CurriculumData) -> dict[str, Any]:
    return {
        "what": "curriculum",
        "name": data.spec.name,
        "data": data,
        "spec": data.spec,
        "now": data.now,
        "verdict": curriculum_verdict(data),
        "strips": strips,
        "charts": strips.strips(data.tracks),
        "parts": strips.styles_of_parts(data.tracks),
        "dots": strips.dot_charts(data),
        "refined": strips.refinement_charts(data),
        "tables": strips.tables(data),
    }


def _names(data: ReportData) -> dict[str, Any]:
    charts = figures.learning_charts(data.steps)
    return {
        "what": "run",
        "name": data.run_id,
        "data": data,
        "spec": data.spec,
        "verdict": wording.verdict(data),
        "changes": wording.changes(data.summary) if data.summary else [],
        "charts": charts,
        "smoothed": any(line.raw for chart in charts for line in chart.lines),
        "bars": figures.outcome_bars(data.windows),
        "kinds": KINDS,
        "labeled": sum(data.kinds.values()),
        "run_file": run_file(data.spec),
    }
