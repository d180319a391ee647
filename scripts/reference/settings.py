"""The environment variables, from the class that reads them and the docstrings of its fields."""

from __future__ import annotations

import ast
import inspect
from textwrap import dedent

from scripts.reference.tables import bounds, default, table

from proofloop.config.settings import Settings
from proofloop.engine import triton
from proofloop.engine.openai import settings as openai
from proofloop_serving.settings import FOLDER_VARIABLE

OTHERS = (
    (
        openai.KEY,
        "The key of the servers of the engine `openai`, unless `api_key_env` names another.",
    ),
    (
        triton.KEY,
        "Sent by the engine `triton` with requests that load or unload a model. A Triton that"
        " `serving/start.sh` starts with it requires it.",
    ),
    ("PROOFLOOP_MODELS", "Triton's model repository, for `serving/start.sh`."),
    (
        "PROOFLOOP_POD_IP",
        "The pod's address, for `serving/start.sh`: it decides whether Triton's metrics listen on"
        " IPv6. The chart sets it.",
    ),
    (FOLDER_VARIABLE, "The folder of the settings files that Triton's load requests name."),
    (
        "PROOFLOOP_SECRETS",
        "A folder with values as files: `proofloop_broker` has the value of `PROOFLOOP_BROKER`.",
    ),
    ("SSL_CERT_FILE", "A certificate authority for broker and store."),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "An OpenTelemetry collector's HTTP port: turns traces on."),
    ("SENTRY_DSN", "Where failed tasks are reported."),
    ("HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY", "Proxies of the engine `openai`."),
)
HOME = {"cache": "`~/.cache/proofloop`"}
"""Defaults that differ by machine."""


def sections() -> list[str]:
    meanings = _docstrings()
    own = [
        (
            f"`PROOFLOOP_{name.upper()}`",
            HOME.get(name) or default(field),
            ", ".join(bounds(field)),
            meanings.get(name, ""),
        )
        for name, field in Settings.model_fields.items()
    ]
    return [
        table(("variable", "default", "bounds", "meaning"), own),
        "## Others",
        table(("variable", "meaning"), [(f"`{name}`", text) for name, text in OTHERS]),
    ]


def _docstrings() -> dict[str, str]:
    """The docstring below each field of the class, by the field's name."""
    (tree,) = ast.parse(dedent(inspect.getsource(Settings))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found
