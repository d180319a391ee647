"""proofloop's contract tests on this package, which must be installed."""

from dataclasses import replace

import pytest
from proofloop_fractions.domain import Fractions
from proofloop_fractions.engine import PACK, Pupil, PupilSettings

from proofloop.engine.base import ChatMessage
from proofloop.testing import DomainContract, EngineContract, EngineSubject

PROMPT = PACK.prove("Show that 1/2 + 1/3 = 5/6.").text


def too_long(request):
    return replace(request, messages=(ChatMessage("user", "x" * 20_000),))


class TestFractions(DomainContract):
    @pytest.fixture
    def domain(self):
        return Fractions()


class TestPupil(EngineContract):
    @pytest.fixture
    def subject(self):
        engine = Pupil(PupilSettings())
        yield EngineSubject(engine, "pupil", too_long, PROMPT)
        engine.close()
