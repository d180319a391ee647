"""Renders a report's HTML page. Jinja escapes everything by default, since proofs and critiques are
untrusted text.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from proofloop.errors import library
from proofloop.report import (
    learning_curves,
    line_charts,
    measured_charts,
    numbers,
    run_charts,
    titles,
    verdict,
)
from proofloop.report.curriculum import CurriculumData, curriculum_verdict
from proofloop.report.data import KINDS, ReportData
from proofloop.report.runfile import run_file
from proofloop.version import __version__

if TYPE_CHECKING:
    import jinja2

FILTERS = {
    "count": numbers.count,
    "share": numbers.share,
    "money": numbers.money,
    "duration": numbers.duration,
    "day": numbers.day,
    "score": numbers.score,
    "version": numbers.version,
    "defects": numbers.defects,
}


def render(data: ReportData | CurriculumData) -> str:
    """The report's page as HTML. Raises ConfigError if Jinja is not installed."""
    if isinstance(data, CurriculumData):
        return document("curriculum.html.jinja", **curriculum_names(data))
    return document("page.html.jinja", **_names(data))


def document(template: str, *packages: str, **names: Any) -> str:
    """A page in the report's frame, from a template of the report or of these packages. It has the
    scripts and fonts for formulas if it has any.
    """
    found = environment(*packages).get_template(template)
    from proofloop.typeset import assets  # needs MarkupSafe, which comes with Jinja

    files = assets.inlined()
    shell = {**_shell(), "typeset_style": assets.style(), "typeset_policy": files.policy}
    page = found.render(**shell, **names)
    if 'class="formula' not in page:
        return page
    begin, end, rest = page.rpartition("</body>")
    return f"{begin}{files.html}\n{end}{rest}"


def style() -> str:
    """The CSS of the report and of the review page."""
    return files("proofloop.report").joinpath("page.css").read_text("utf-8")


def environment(*packages: str) -> jinja2.Environment:
    """A Jinja environment with the templates of these packages and of the report, and the report's
    filters.

    Raises ConfigError if Jinja is not installed.
    """
    with library("Jinja, which draws the report, is not installed", "[report]"):
        import jinja2
    from proofloop.typeset.markdown import typeset

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name, ".") for name in (*packages, "proofloop.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS, typeset=typeset)
    return environment


def _shell() -> dict[str, Any]:
    """The variables of both templates."""
    return {
        "style": style(),
        "line_charts": line_charts,
        "run_charts": run_charts,
        "titles": titles,
        "release": __version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
    }


def curriculum_names(data: CurriculumData) -> dict[str, Any]:
    """The variables of a curriculum's template."""
    return {
        "what": "curriculum",
        "name": data.spec.name,
        "data": data,
        "spec": data.spec,
        "now": data.now,
        "verdict": curriculum_verdict(data),
        "learning_curves": learning_curves,
        "measured_charts": measured_charts,
        "charts": learning_curves.learning_curves(data.tracks),
        "parts": learning_curves.styles_of_parts(data.tracks),
        "dots": measured_charts.dot_charts(data),
        "refined": measured_charts.refinement_charts(data),
        "tables": measured_charts.tables(data),
    }


def _names(data: ReportData) -> dict[str, Any]:
    charts = run_charts.learning_charts(data.steps)
    return {
        "what": "run",
        "show": verdict.show,
        "interval": verdict.interval,
        "name": data.run_id,
        "data": data,
        "spec": data.spec,
        "verdict": verdict.verdict(data),
        "changes": verdict.changes(data.summary) if data.summary else [],
        "charts": charts,
        "smoothed": any(line.raw for chart in charts for line in chart.lines),
        "bars": run_charts.outcome_bars(data.windows),
        "kinds": [kind for kind in KINDS if kind != "graded" or data.kinds[kind]],
        "labeled": sum(data.kinds.values()),
        "run_file": run_file(data.spec),
    }
