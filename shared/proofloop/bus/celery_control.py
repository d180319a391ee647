"""Celery's remote control of a worker: the commands that would lose events or do nothing here are
refused.

The reply says what to do instead. All others, `inspect` among them, work as Celery ships them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel, nok, ok

REFUSED = {
    "pool_grow": "a role grows by processes: start another one, or let KEDA or the HPA do it",
    "pool_shrink": "a role shrinks by processes: stop one, or let KEDA or the HPA do it",
    "pool_restart": "stop the process and start it again",
    "autoscale": "a role scales by processes: KEDA or the HPA starts and stops them",
    "rate_limit": "the engine's settings in the run file limit its calls",
    "time_limit": (
        "threads cannot be interrupted; the engine's settings in the run file limit its calls"
    ),
    "revoke": "an event belongs to a run that waits for it; stop the run, or drop its dead letters",
    "revoke_by_stamped_headers": "an event belongs to a run that waits for it",
    "terminate": "an event belongs to a run that waits for it",
}
"""What to do instead of each."""


def install() -> None:
    """Make the worker of this process answer so."""
    Panel.data.update({name: _refuse(why) for name, why in REFUSED.items()})
    Panel.data["add_consumer"] = _add_consumer


def _refuse(why: str) -> Callable[..., dict[str, str]]:
    def command(state: object, **_: object) -> dict[str, str]:
        reply: dict[str, str] = nok(why)
        return reply

    return command


def _add_consumer(state: Any, queue: str, **_: object) -> dict[str, str]:
    """Consume again after `cancel_consumer`. The messages of another role would become dead letters
    here.
    """
    consumer = state.consumer
    own = consumer.bus.queue_name
    if queue != own:
        problem = f"this worker serves {own} only; start another process"
        return nok(problem)  # type: ignore[no-any-return]
    consumer.call_soon(consumer.add_task_queue, queue)
    return ok(f"add consumer {queue}")  # type: ignore[no-any-return]
