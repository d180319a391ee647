"""Reports errors to Sentry if SENTRY_DSN is set: failed tasks, and errors that end a thread or the
process.

A report has the error's type and stack trace, without its text, arguments or local variables: a
text such as "input_value='Let n be odd ...'" would quote a proof.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from proofloop.errors import library
from proofloop.version import __version__

if TYPE_CHECKING:
    from sentry_sdk.integrations import Integration
    from sentry_sdk.types import Event, Hint

DSN = "SENTRY_DSN"


def start_sentry() -> None:
    """Send errors to Sentry from now on, if SENTRY_DSN is set. Raises ConfigError if the library is
    missing.

    Call it before anything imports `celery.worker.consumer`, which keeps the function that Sentry
    patches.
    """
    if not os.environ.get(DSN):
        return
    with library(f"{DSN} is set without Sentry's library", "[sentry]"):
        import sentry_sdk
    sentry_sdk.init(
        release=os.environ.get("SENTRY_RELEASE") or f"proofloop@{__version__}",
        # they would send log messages, HTTP calls and the prompts of AI clients
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=_integrations(),
        before_send=_without_texts,
        include_local_variables=False,
        send_default_pii=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
    )


def _integrations() -> list[Integration]:
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration
    from sentry_sdk.integrations.threading import ThreadingIntegration

    return [
        # It would print to stderr, where logs are JSON.
        AtexitIntegration(callback=lambda pending, timeout: None),
        CeleryIntegration(propagate_traces=False),
        DedupeIntegration(),
        ExcepthookIntegration(),
        ThreadingIntegration(),
    ]


def _without_texts(event: Event, hint: Hint) -> Event:
    for error in event.get("exception", {}).get("values", []):
        error["value"] = ""
    return event
