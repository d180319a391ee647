"""Checks the consumer timeout of a queue by the broker's management API.

RabbitMQ closes the channel of a consumer that keeps a message longer than `consumer_timeout`
(default: 30 minutes) and delivers the message again: a long proof would restart for ever. The API
shows the timeout only if a policy or a queue argument (RabbitMQ 3.12) sets it, not from
rabbitmq.conf.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import structlog

from proofloop.errors import BusError, ConfigError

log = structlog.get_logger()


def check_consumer_timeout(api: str | None, vhost: str, queue: str, longest_call_s: float) -> None:
    """Raises ConfigError if the queue's consumer timeout is known and shorter than the longest
    call.
    """
    seen = [_milliseconds(fields) for fields in _settings(api, vhost, queue)] if api else []
    limits = [limit for limit in seen if limit is not None]
    if not limits:
        log.debug("consumer_timeout_not_visible", queue=queue, needed_s=longest_call_s)
    elif min(limits) < longest_call_s * 1000:
        raise ConfigError(
            f"queue {queue} has a consumer timeout of {min(limits) / 1000:.0f} s, shorter than the"
            f" longest call (PROOFLOOP_LONGEST_CALL_S={longest_call_s:.0f}): the broker would"
            " deliver long calls again",
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
            "PROOFLOOP_BROKER_API is not a URL", "write it as http://user:password@host:15672"
        ) from error
    except httpx.HTTPStatusError as error:
        reason = f"status {error.response.status_code}"
        raise ConfigError(
            f"the management API refuses access: {reason}", "correct or unset PROOFLOOP_BROKER_API"
        ) from None
    except (httpx.HTTPError, ValueError) as error:
        raise BusError(f"the management API does not answer: {type(error).__name__}") from error
    return [found.get("arguments") or {}, found.get("effective_policy_definition") or {}]


def _milliseconds(fields: dict[str, Any]) -> int | None:
    value = fields.get("x-consumer-timeout", fields.get("consumer-timeout"))
    return value if isinstance(value, int) else None
