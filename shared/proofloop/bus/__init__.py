"""The message bus."""

from proofloop.bus.base import ACK, Bus, DeadLetter, Delivery, Outcome
from proofloop.bus.local import LocalBus

__all__ = ["ACK", "Bus", "DeadLetter", "Delivery", "LocalBus", "Outcome"]
