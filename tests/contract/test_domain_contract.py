"""The contract of a domain, run on each."""

from __future__ import annotations

import pytest

from proofloop.method.domains import BUILT_IN, Domain, load_domain
from proofloop.testing import DomainContract


class TestDomainContract(DomainContract):
    @pytest.fixture(params=BUILT_IN)
    def domain(self, request: pytest.FixtureRequest) -> Domain:
        return load_domain(request.param)
