"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

    from tests.integration.rabbitmq import Broker
    from tests.integration.servers import S3
    from tests.integration.triton_server import Triton

# How long a case takes says how busy the machine is.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)  # of `make unit`
hypothesis.settings.load_profile("busy")

# What tests expect to the last digit is a CPU's; those of GPUs start processes.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL's trainer would report to Hugging Face

MAY_BE_SKIPPED = (
    "custom resources are NOT checked",
    "no container: ",
    "has no stub for Python",
    "no GPU: ",
    "no vLLM: ",
)
"""What no package can mend: others' schemas, no right to make a namespace, a Python newer than
Triton's, no GPU, vLLM's own environment.
"""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With PROOFLOOP_TEST_SKIPS=fail, as in CI, a green run means that every server was there and
    every test ran.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("PROOFLOOP_TEST_SKIPS") != "fail":
        return
    skipped = [str(report.longrepr[2]) for report in reporter.stats.get("skipped", ())]
    if not all(any(reason in why for reason in MAY_BE_SKIPPED) for why in skipped):
        reporter.write_line(
            "PROOFLOOP_TEST_SKIPS=fail: this run fails for what was skipped, see below", red=True
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_finish() -> None:
    """The garbage collector passes over the objects of imported modules: learners and models call
    it as they open and close.
    """
    gc.collect()
    gc.freeze()


MAKE_MUCH_ONCE = {
    "test_cli",
    "test_cluster",
    "test_fsdp",
    "test_grpo",
    "test_grpo_loss",
    "test_language_model",
    "test_mixture_of_experts",
    "test_plugin",
    "test_services_install_alone",
    "test_tls",
    "test_trainer",
    "test_transformers_serve",
    "test_triton_serving",
    "test_vllm",
}
"""The tests of such a file share a server or a trained model, so one process runs them all."""


class ByFile(LoadScopeScheduling):
    """Gives one process all tests of a file that makes much once, and single tests of the others.

    The marks of xdist's own `loadgroup` have no effect with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        is_whole = file.stem in MAKE_MUCH_ONCE or file.parent.name == "browser"
        return str(file) if is_whole else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile | None:
    return ByFile(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True, scope="session")
def loggers_follow_their_settings() -> Iterator[None]:
    """A logger that is cached keeps the settings of the first command that a test ran, and later
    ones see nothing.
    """
    configure = structlog.configure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            structlog,
            "configure",
            lambda **said: configure(**{**said, "cache_logger_on_first_use": False}),
        )
        yield


@pytest.fixture(autouse=True)
def log_settings_end_with_the_test() -> Iterator[None]:
    """A command that a test calls in this process sets them."""
    yield
    structlog.reset_defaults()


# Servers and models that a whole session shares. Each imports its helpers when the first test asks
# for it, so unit tests load none of them.


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A RabbitMQ broker."""
    from tests.integration.servers import found_broker

    with found_broker() as own:
        yield own


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 store."""
    from tests.integration.servers import found_s3

    with found_s3() as own:
        yield own


@pytest.fixture(scope="session")
def triton() -> Iterator[Triton]:
    """A Triton server without models."""
    from tests.integration.triton_server import found_triton

    with found_triton() as own:
        yield own


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct."""
    from tests.smollm2 import smollm2_folder

    return smollm2_folder()


@pytest.fixture
def quiet_log() -> None:
    """Errors that a test provokes on purpose are not shown."""
    structlog.configure(processors=[_drop])


def _drop(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    raise structlog.DropEvent
