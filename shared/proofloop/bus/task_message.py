"""An event as a Celery task message (protocol 2): the task's name is the routing key, its one
argument the event.

Any Celery client can read and write these messages, so Flower and the instrumentations know them.
Messages go out by pika; `Taken` reads one that came in, also one that no Celery client wrote.
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
"""How often the message failed before this copy of it."""

REASON, DELIVERIES = "x-proofloop-reason", "x-proofloop-deliveries"
"""Why a message is dead, and after how many deliveries."""

PUBLISHED = "x-proofloop-published-ms"
"""Since when the message could be delivered: milliseconds of Unix time."""

COUNTS = (FAILURES, PUBLISHED, "x-delivery-count")
"""Headers with numbers; the last is the broker's: how often the message was delivered before."""

KEPT = ("traceparent",)
"""Headers that every copy of a message keeps."""

AS_IT_CAME, RAW = "message", "raw"
"""The task that stands for a message which is no event's task; where its body is kept meanwhile."""

BEFORE, AFTER = (
    b"[[",
    b'], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
)
"""What stands around the event in a body: positional arguments, keyword arguments, and Celery's
canvas, unused here.
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
    """A message that makes Celery run `task` with this event; it expires after `after_s` if that is
    set.
    """
    of_celery = {"lang": "py", "task": task, "id": id, "argsrepr": id}
    properties = _properties(
        of_celery | dict(headers),
        after_s,
        content_type="application/json",
        content_encoding="utf-8",
        message_id=id,
        correlation_id=id,
    )
    return Message(exchange, routing_key, BEFORE + event + AFTER, properties, must_arrive)


def is_ours(body: bytes) -> bool:
    """Whether the body is one that `task_message` makes, whatever the event in it is."""
    return body.startswith(BEFORE) and body.endswith(AFTER)


def event_of(body: bytes) -> bytes:
    """The event in a body: of our messages byte for byte, of another Celery client's encoded anew,
    else the body.
    """
    if is_ours(body):
        return body[len(BEFORE) : -len(AFTER)]
    if not body.startswith(b"[") or len(body) > 2 * MAX_BODY_BYTES:
        return body
    try:
        arguments = json.loads(body)[0]
        return json.dumps(arguments[0], separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return body


def again(
    exchange: str,
    routing_key: str,
    taken: Mapping[str, Any],
    body: bytes,
    about: Mapping[str, str | int],
    after_s: float = 0.0,
) -> Message:
    """The same message anew, with `about` in its headers in place of what an earlier copy had
    there.

    What is no task, or longer than an event can be, goes as it came, cut at that length: the rest
    was never read.
    """
    event, task, id = event_of(body), taken.get("task"), taken.get("id")
    if (
        task == AS_IT_CAME
        or not isinstance(task, str)
        or not isinstance(id, str)
        or len(event) > MAX_BODY_BYTES
    ):
        return Message(
            exchange, routing_key, body[:MAX_BODY_BYTES], _properties(about, after_s), True
        )
    kept = {name: taken[name] for name in KEPT if name in taken}
    return task_message(
        exchange, routing_key, task, id, event, headers=kept | dict(about), after_s=after_s
    )


def counts(headers: Mapping[str, Any]) -> dict[str, int]:
    """The headers that count something, of a message whose other headers may be anything."""
    return {name: headers[name] for name in COUNTS if isinstance(headers.get(name), int)}


def _properties(headers: Mapping[str, Any], after_s: float, **more: Any) -> BasicProperties:
    published = {PUBLISHED: int(1000 * time.time()) + math.ceil(1000 * after_s)}
    return BasicProperties(  # type: ignore[no-untyped-call]
        delivery_mode=DeliveryMode.Persistent.value,
        expiration=str(math.ceil(1000 * after_s)) if after_s > 0 else None,
        headers=published | dict(headers),
        **more,
    )
