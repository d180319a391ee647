"""Contract tests for your own bus, store, engine or domain. They need pytest.

Subclass a contract in a test module, and override its fixture:

    class TestMyDomain(DomainContract):
        @pytest.fixture
        def domain(self):
            return MyDomain()
"""

import pytest

pytest.register_assert_rewrite(
    "proofloop.testing.bus",
    "proofloop.testing.domain",
    "proofloop.testing.engine",
    "proofloop.testing.store",
)

from proofloop.testing.bus import BusContract  # noqa: E402 (rewritten asserts)
from proofloop.testing.bus_subject import BusSubject  # noqa: E402 (rewritten asserts)
from proofloop.testing.domain import DomainContract  # noqa: E402
from proofloop.testing.engine import EngineContract, EngineSubject  # noqa: E402
from proofloop.testing.store import StoreContract, StoreSubject  # noqa: E402

__all__ = [
    "BusContract",
    "BusSubject",
    "DomainContract",
    "EngineContract",
    "EngineSubject",
    "StoreContract",
    "StoreSubject",
]
