"""One role at work: takes an event from the bus, calls the role's handler, publishes its events.

The order is always the same. The handler stores; the worker publishes the events that the handler
yielded, waits for the broker's confirm, then acknowledges. Every handler is safe to run twice: it
looks for its own output before it spends anything.
"""

from __future__ import annotations

import time

import structlog

from proofloop.bus import ACK, DELIVERY_LIMIT, Bus, BusState, Delivery, Outcome
from proofloop.errors import (
    BusError,
    CorruptObject,
    InvalidKey,
    NotFound,
    ProofloopError,
    Reject,
    Retry,
    RunNotFound,
    StoreError,
)
from proofloop.schema.events import Event, decode
from proofloop.worker.calls.model_call import MODEL_IN_LOG
from proofloop.worker.calls.running_calls import LookAgain
from proofloop.worker.roles import Role
from proofloop.worker.tools import Tools

log = structlog.get_logger()

FAILED_SHARE_LIMIT = 0.2
FAILED_MINIMUM = 25
"""A worker stops when more than this share of its messages, and at least this many, failed: then
the worker itself is at fault.
"""

WORKER_DIED = "delivered {} times; each time its worker died, or lost it"
"""The broker limits such deliveries too, but it counts anew when a lease postponed the message."""

AWAY_S = 2.0
"""How long a message waits before a store or broker that was away is tried again."""

COUNTED_AS = {"ack": "acked", "requeue": "requeued", "failed": "failed", "dead": "dead"}
"""The outcomes as the metrics name them."""

ABOUT = {"run": "run_id", "problem": "problem_id", "proof": "proof_id", "version": "version"}
"""What each log line tells about the message, and which field of the event has it."""


class Worker:
    """One role at work on a bus."""

    def __init__(self, role: Role, bus: Bus, tools: Tools) -> None:
        self.role = role
        self._bus = bus
        self._tools = tools
        self._in_work = tools.metrics.in_work.labels(role.name)
        self._of_missing_runs = 0

    def start(self, *, concurrency: int) -> None:
        self._tools.metrics.begin(self.role.name)
        connected = self._tools.metrics.broker_connected.labels(self.role.name)
        connected.set_function(lambda: float(self._bus.state() == BusState()))
        self._bus.serve(self.role.name, self.role.handlers, self.process, concurrency=concurrency)

    def process(self, delivery: Delivery) -> Outcome:
        """Handle one delivery. Every exception becomes an outcome."""
        wait_s = (
            None if delivery.published_s is None else max(0.0, time.time() - delivery.published_s)
        )
        began_s = time.perf_counter()
        with self._in_work.track_inprogress():
            event, outcome = self._process(delivery)
        metrics = self._tools.metrics
        role = self.role.name
        counted = COUNTED_AS[outcome.kind]
        if wait_s is not None:
            metrics.queue_wait.labels(role, event).observe(wait_s)
        metrics.handling.labels(role, event, counted).observe(time.perf_counter() - began_s)
        metrics.messages.labels(role, counted).inc()
        if outcome.kind in ("failed", "dead"):
            self._count_failure(delivery, outcome)
        return outcome

    def _process(self, delivery: Delivery) -> tuple[str, Outcome]:
        """Returns the event's name and the outcome. Log lines name the message."""
        try:
            event = decode(delivery.body)
        except Reject as refusal:
            return "unknown", self._dead(refusal)
        about = {name: getattr(event, attribute, None) for name, attribute in ABOUT.items()}
        with structlog.contextvars.bound_contextvars(
            role=self.role.name,
            message=event.id,
            attempt=delivery.attempt,
            **{name: value for name, value in about.items() if value is not None},
        ):
            if delivery.attempt > DELIVERY_LIMIT + 1:
                return event.name, self._dead(Reject(WORKER_DIED.format(delivery.attempt - 1)))
            tools = self._tools
            try:
                with (
                    tools.span(
                        event.name,
                        event.run_id,
                        getattr(event, "proof_id", event.id),
                        message=event.id,
                    ),
                    tools.calls.message(
                        redelivered=delivery.redelivered,
                        attempt=delivery.attempt,
                        stopping=tools.shutdown.stopping,
                    ),
                ):
                    return event.name, self._handle(event)
            finally:
                structlog.contextvars.unbind_contextvars(MODEL_IN_LOG)

    def _handle(self, event: Event) -> Outcome:
        try:
            with self._tools.gate.message(event, self.role.name) as is_wanted:
                if is_wanted:
                    self._bus.publish(self._events(event))
                else:
                    log.info(
                        "message_dropped",
                        reason="the run's budget is used up, or the run was stopped",
                    )
        except Retry as wish:
            log.info("message_postponed", reason=str(wish), after_s=wish.after_s)
            return self._later("asked", wish, wish.after_s)
        except (NotFound, CorruptObject) as error:
            reason = f"the store lacks what the message names: {error}"
            if isinstance(error, RunNotFound):
                self._of_missing_runs += 1
                reason += "; set the same store for `proofloop run` and all services"
            log.warning("message_failed", reason=reason)
            return Outcome("failed", reason)
        except InvalidKey as error:
            return self._dead(Reject(f"the message names a key that the store refuses: {error}"))
        except (StoreError, BusError) as error:
            self._tools.warn_away(error)
            away = "store" if isinstance(error, StoreError) else "broker"
            return self._later(away, error, AWAY_S)
        except Reject as refusal:
            return self._dead(refusal)
        except Exception as error:  # a bug: it is retried up to the delivery limit
            log.exception("handler_failed")
            return Outcome("failed", f"{type(error).__name__}: {error}", error=error)
        return ACK

    def _events(self, event: Event) -> tuple[Event, ...]:
        handler = self.role.handlers[event.routing_key]
        try:
            return tuple(handler(event, self._tools))
        except LookAgain:
            return tuple(handler(event, self._tools))

    def _later(self, because: str, error: ProofloopError, after_s: float) -> Outcome:
        self._tools.metrics.retries.labels(self.role.name, because).inc()
        return Outcome("requeue", str(error), after_s)

    def _dead(self, refusal: Reject) -> Outcome:
        log.error("message_dead", reason=str(refusal))
        return Outcome("dead", str(refusal))

    def _count_failure(self, delivery: Delivery, outcome: Outcome) -> None:
        """Count a failed or dead message, and stop the worker when too many of them failed.

        A message that no engine can answer is not counted: its run is at fault. So is a run that
        the store lacks, once the worker has handled messages of other runs.
        """
        metrics = self._tools.metrics
        role = self.role.name
        if outcome.kind == "failed" and delivery.attempt < DELIVERY_LIMIT:
            metrics.retries.labels(role, "failure").inc()
        else:
            metrics.dead_letters.labels(role).inc()
        bad = sum(
            metrics.total(metrics.messages, role=role, outcome=kind) for kind in ("failed", "dead")
        )
        bad -= metrics.total(metrics.engine_failures, role=role, reason="unusable")
        acked = metrics.total(metrics.messages, role=role, outcome="acked")
        if acked:
            bad -= self._of_missing_runs
        seen = bad + acked
        if bad >= FAILED_MINIMUM and bad > FAILED_SHARE_LIMIT * seen:
            self._tools.shutdown.stop(
                f"{bad} of {seen} messages of the {role} failed, the last because: {outcome.reason}"
            )
