"""Fills the page's template. Everything is escaped by default: proofs and critiques are untrusted text."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from proofloop.errors import ConfigError, install_hint
from proofloop.report import figures, wording
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


def render(data: ReportData) -> str:
    """The whole page. Raises ConfigError where Jinja is not installed."""
    return environment().get_template("page.html.jinja").render(**_names(data))


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


def _names(data: ReportData) -> dict[str, Any]:
    """What the template may use."""
    charts = figures.learning_charts(data.steps)
    return {
        "data": data,
        "spec": data.spec,
        "style": style(),
        "verdict": wording.verdict(data),
        "changes": wording.changes(data.summary) if data.summary else [],
        "figures": figures,
        "wording": wording,
        "charts": charts,
        "smoothed": any(line.raw for chart in charts for line in chart.lines),
        "bars": figures.outcome_bars(data.windows),
        "kinds": KINDS,
        "labeled": sum(data.kinds.values()),
        "run_file": run_file(data.spec),
        "release": installed_version("proofloop"),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
    }
