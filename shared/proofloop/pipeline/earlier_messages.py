"""Whether the services still work on messages that an earlier process of the run published."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proofloop.runs.costs import ByRole
from proofloop.worker.calls.usage import WRITE_S, ServicesUsage

if TYPE_CHECKING:
    from proofloop.bus.dead_letters import DeadLetters

LOOK_S = 1.0
"""How often the queues and the services' counts are read."""

SETTLED_S = WRITE_S + 2 * LOOK_S
"""The messages are settled if for this long no queue has one and the services count no call. They
write their counts within `WRITE_S`.
"""

OTHERS_S = 600.0
"""If for this long the services count no call of the run, the messages in the queues are taken to
be other runs'. RabbitMQ's retry of a delayed message (180 s) takes less.
"""


class EarlierMessages:
    """Looks at the queues and at the services' counts of the run."""

    def __init__(self, usage: ServicesUsage, letters: DeadLetters) -> None:
        self._usage, self._letters = usage, letters
        self._used: ByRole = {}
        self._looked_s = self._called_s = self._queued_s = time.monotonic()

    def are_settled(self) -> bool:
        """Whether nothing of the run is in work, as of the last look. Raises StoreError,
        BusError.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._look(now_s)
            self._looked_s = now_s
        uncalled_s = now_s - self._called_s
        return uncalled_s > OTHERS_S or min(uncalled_s, now_s - self._queued_s) > SETTLED_S

    def start_again(self) -> None:
        """Begin to wait anew after an outage, in which the services could not tell what they do."""
        self._called_s = time.monotonic()

    def _look(self, now_s: float) -> None:
        self._usage.read()
        if self._usage.in_flight or self._usage.since_begin != self._used:
            self._called_s, self._used = now_s, self._usage.since_begin
        depths = self._letters.depths()
        if any(depth.ready or depth.later for depth in depths if depth.role != "trainer"):
            self._queued_s = now_s
