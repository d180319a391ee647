"""Encodes an event as a Celery task message (protocol 2): the task's name is the routing key, its
one argument the event.

Any Celery client can read and write these messages, and so can Flower and the instrumentations.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pika import BasicProperties, DeliveryMode

from proofloop.bus.publisher import Message
from proofloop.schema.events import MAX_BODY_BYTES

FAILURES = "x-proofloop-failures"
"""How often the message failed before this copy."""

REASON, DELIVERIES = "x-proofloop-reason", "x-proofloop-deliveries"
"""The reason of a dead letter, and the number of its deliveries."""

PUBLISHED = "x-proofloop-published-ms"
"""The Unix time in milliseconds from which the message could be delivered."""

COUNTS = (FAILURES, PUBLISHED, "x-delivery-count")
"""Headers with numbers. The last is the broker's count of earlier deliveries."""

KEPT = ("traceparent",)
"""Headers that every copy of a message keeps."""

PERSISTENT = DeliveryMode.Persistent.value

UNKNOWN_TASK, RAW = "message", "raw"
"""The task for a message that is not an event's task, and the attribute that keeps its body."""

BEFORE = b"[["
AFTER = b'], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
"""The bytes of a body before and after the event: positional arguments, keyword arguments, and
Celery's canvas, which is unused.
"""


def task_message(
    exchange: str,
    routing_key: str,
    task: str,
    id: str,
    event: bytes,
    *,
    headers: Mapping[str, str | int] = MappingProxyType({}),
    after_s: float = 0.0,
    must_arrive: bool = True,
) -> Message:
    """A message that makes Celery run `task` with this event. It expires after `after_s`, if
    set.
    """
    properties = _properties(
        {"lang": "py", "task": task, "id": id, "argsrepr": id, **headers}, after_s
    )
    properties.content_type, properties.content_encoding = "application/json", "utf-8"
    properties.message_id = properties.correlation_id = id
    return Message(exchange, routing_key, BEFORE + event + AFTER, properties, must_arrive)


def is_event_task(body: bytes) -> bool:
    """Whether `task_message` made this body."""
    return body.startswith(BEFORE) and body.endswith(AFTER)


def event_of(body: bytes) -> bytes:
    """The event in a body: unchanged bytes from `task_message`, encoded again from another Celery
    client, else the whole body.
    """
    if is_event_task(body):
        return body[len(BEFORE) : -len(AFTER)]
    if not body.startswith(b"[") or len(body) > 2 * MAX_BODY_BYTES:
        return body
    try:
        arguments = json.loads(body)[0]
        return json.dumps(arguments[0], separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return body


def copy_of(
    exchange: str,
    routing_key: str,
    headers: Mapping[str, Any],
    body: bytes,
    about: Mapping[str, str | int],
    after_s: float = 0.0,
) -> Message:
    """A copy of a message with the headers `about`, which replace those of an earlier copy.

    A message that is not an event's task, or is too long, is copied as it is, cut at the longest
    event.
    """
    event, task, id = event_of(body), headers.get("task"), headers.get("id")
    if (
        task == UNKNOWN_TASK
        or not isinstance(task, str)
        or not isinstance(id, str)
        or len(event) > MAX_BODY_BYTES
    ):
        return Message(
            exchange, routing_key, body[:MAX_BODY_BYTES], _properties(about, after_s), True
        )
    kept = {name: headers[name] for name in KEPT if name in headers}
    return task_message(
        exchange, routing_key, task, id, event, headers=kept | dict(about), after_s=after_s
    )


def count_headers(headers: Mapping[str, Any]) -> dict[str, int]:
    """The headers with counts. Other headers may have any type."""
    return {name: headers[name] for name in COUNTS if isinstance(headers.get(name), int)}


def _properties(headers: Mapping[str, Any], after_s: float) -> BasicProperties:
    now_ms = int(1000 * time.time())
    wait_ms = math.ceil(1000 * after_s) if after_s > 0 else 0
    return BasicProperties(  # type: ignore[no-untyped-call]
        delivery_mode=PERSISTENT,
        expiration=str(wait_ms) if wait_ms else None,
        headers={PUBLISHED: now_ms + wait_ms, **headers},
    )
