"""Celery's remote control of a worker, without the commands that would lose events or have no
effect.

The reply to such a command names the alternative. All others, such as `inspect`, are Celery's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel, nok, ok

REFUSED = {
    "pool_grow": "roles scale by processes: start another process, or use KEDA or the HPA",
    "pool_shrink": "roles scale by processes: stop a process, or use KEDA or the HPA",
    "pool_restart": "stop the process and start it again",
    "autoscale": "roles scale by processes: use KEDA or the HPA",
    "rate_limit": "set the rate limits of the engine in the run file",
    "time_limit": "threads cannot be interrupted: set the engine's timeouts in the run file",
    "revoke": "a run waits for this event: stop the run, or drop its dead letters",
    "revoke_by_stamped_headers": "a run waits for this event",
    "terminate": "a run waits for this event",
}
"""The reply to each refused command."""


def install() -> None:
    """Replace these commands in the worker of this process."""
    Panel.data.update({name: _refuse(why) for name, why in REFUSED.items()})
    Panel.data["add_consumer"] = _add_consumer


def _refuse(why: str) -> Callable[..., dict[str, str]]:
    def command(state: object, **_: object) -> dict[str, str]:
        reply: dict[str, str] = nok(why)
        return reply

    return command


def _add_consumer(state: Any, queue: str, **_: object) -> dict[str, str]:
    """Consume again after `cancel_consumer`. Another role's queue is refused: its messages would
    become dead letters here.
    """
    consumer = state.consumer
    own = consumer.bus.queue_name
    if queue != own:
        problem = f"this worker serves {own} only; start another process"
        return nok(problem)  # type: ignore[no-any-return]
    consumer.call_soon(consumer.add_task_queue, queue)
    return ok(f"add consumer {queue}")  # type: ignore[no-any-return]
