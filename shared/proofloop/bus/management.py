"""What can be seen of the broker's settings by its management API: the consumer timeout of a queue.

RabbitMQ closes the channel of a consumer that keeps a message longer than `consumer_timeout`, 30
minutes unless it is set, and delivers the message to another: a long proof would be written again
and again. Set in rabbitmq.conf it cannot be seen from outside; set for a queue by policy or
argument (RabbitMQ 3.12) it can.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import structlog

from proofloop.errors import BusError, ConfigError

log = structlog.get_logger()


def check_consumer_timeout(api: str | None, vhost: str, queue: str, longest_call_s: float) -> None:
    """Raises ConfigError if the queue's consumer timeout can be seen and is shorter than the
    longest call.
    """
    seen = [_milliseconds(fields) for fields in _settings(api, vhost, queue)] if api else []
    limits = [limit for limit in seen if limit is not None]
    if not limits:
        log.debug("consumer_timeout_not_visible", queue=queue, needed_s=longest_call_s)
    elif min(limits) < longest_call_s * 1000:
        raise ConfigError(
            f"queue {queue} has a consumer timeout of {min(limits) / 1000:.0f} s, shorter than the"
            " longest call "
            f"(PROOFLOOP_LONGEST_CALL_S={longest_call_s:.0f}): the broker would deliver such"
            " messages again",
            f"raise the policy's consumer-timeout above {longest_call_s * 1000:.0f} (milliseconds)",
        )


def _settings(api: str, vhost: str, queue: str) -> list[dict[str, Any]]:
    """The queue's arguments and the policy in force for it."""
    where = f"{api.rstrip('/')}/api/queues/{quote(vhost, safe='')}/{quote(queue, safe='')}"
    try:
        answer = httpx.get(where, timeout=10.0)
        answer.raise_for_status()
        found = answer.json()
    except httpx.InvalidURL as error:
        raise ConfigError(
            "PROOFLOOP_BROKER_API is no URL", "write it as http://user:password@host:15672"
        ) from error
    except httpx.HTTPStatusError as error:
        reason = f"status {error.response.status_code}"
        raise ConfigError(
            f"the management API refuses: {reason}", "correct PROOFLOOP_BROKER_API or unset it"
        ) from None
    except (httpx.HTTPError, ValueError) as error:
        raise BusError(f"the management API does not answer: {type(error).__name__}") from error
    return [found.get("arguments") or {}, found.get("effective_policy_definition") or {}]


def _milliseconds(fields: dict[str, Any]) -> int | None:
    value = fields.get("x-consumer-timeout", fields.get("consumer-timeout"))
    return value if isinstance(value, int) else None
