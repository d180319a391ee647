"""Every error that proofloop raises on purpose, as a tree.

ProofloopError
├── ConfigError          the user's input is wrong: one line, exit code 2
├── StoreError           the object store is unavailable or refuses
│   └── ObjectError      the store works, and a retry changes nothing
│       ├── NotFound         no object under that key
│       │   └── RunNotFound      the store has no such run
│       ├── CorruptObject    an object is damaged or has the wrong form
│       └── InvalidKey       no store can hold an object under that key
├── BusError             the message broker is unavailable or refuses
├── EngineError          a model call failed; `retryable`: whether a retry can succeed
│   ├── CallRefused      this call can never succeed: its proof or critique counts as failed
│   └── AccessRefused    no call of this process can succeed: its key is missing or wrong
├── PluginError          another package's domain, engine or store has a bug
├── BudgetUsedUp         the run's [budget] is used up; raise it and resume; exit code 4
├── Interrupted          the run was asked to stop; it can be resumed; exit code 130
├── Retry                a handler asks for a later redelivery of its message
└── Reject               a handler can never handle its message: it becomes a dead letter

Any other exception that leaves a handler is a bug. The bus redelivers the message up to the
delivery limit and then makes it a dead letter.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution

DISTRIBUTION = "proofloop-math"
"""What people install: all parts of proofloop; extras add their libraries. PyPI's `proofloop` is
another project.
"""

TRUST_HINT = "set SSL_CERT_FILE to the certificate of the authority that signed it"
"""The hint for a broker or store whose certificate comes from a private authority."""


RESUME_HINT = "run the command again to continue (`proofloop run`: with --resume)"
"""The hint for work that stopped before its end; the store keeps its results."""


def install_hint(*parts: str) -> str:
    """The command that installs missing parts: roles, `serving`, or extras of the core such as
    `[cluster]`. Without the distribution, the parts came from folders of a clone.
    """
    if _has_distribution():
        extras = ",".join(part.strip("[]") for part in parts)
        return f"pip install '{DISTRIBUTION}[{extras}]'"
    needed = ("serving", *parts) if "trainer" in parts else parts
    return (
        "in a clone of proofloop: pip install"
        f" {' '.join(shlex.quote(_folder_of(part)) for part in needed)}"
    )


def _folder_of(part: str) -> str:
    if part.startswith("["):
        return f"./shared{part}"
    return f"./{part}" if part == "serving" else f"./services/{part}"


def _has_distribution() -> bool:
    try:
        distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return False
    return True


@contextmanager
def needs(part: str) -> Iterator[None]:
    """Raise ConfigError with the way to install the part if one of its libraries is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the {part} needs the package {error.name}, which is not installed",
            install_hint(part),
        ) from error


@contextmanager
def library(problem: str, part: str) -> Iterator[None]:
    """Raise ConfigError(problem) with the way to install the part if an import fails."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(problem, install_hint(part)) from error


class ProofloopError(Exception):
    """The root of all errors that proofloop raises on purpose."""


class HintedError(ProofloopError):
    """An error with a way out, the `hint`."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\nhint: {self.hint}" if self.hint else self.problem


class ConfigError(HintedError):
    """A value that the user gave cannot be used."""


class StoreError(ProofloopError):
    """The object store is unavailable, full, or refuses."""


class ObjectError(StoreError):
    """The store works, and a retry changes nothing: the key or its object is at fault."""


class NotFound(ObjectError):
    """There is no object under this key."""


class RunNotFound(NotFound):
    """The store has no such run: it was deleted, or it is in another store."""


class CorruptObject(ObjectError):
    """The object under this key is damaged or has the wrong form."""


class InvalidKey(ObjectError):
    """No object can have this key."""


class BusError(ProofloopError):
    """The message broker is unavailable, blocked, or refuses."""


class EngineError(ProofloopError):
    """A model call failed.

    `retryable` is true if the same call may succeed later. `after_s` is the wait in seconds, if the
    engine named one. `hint` tells how to fix it, if the engine knows. `cause` is the problem
    without details of the single call, so that equal problems can be counted. `is_load`: the server
    is overloaded or absent; the call is not to blame. `partial` and `partial_reasoning` are the
    received parts of the answer. `prompt_tokens`, `completion_tokens` and `engine_seconds` are the
    cost of the attempts that brought a part of an answer, as far as the server counted tokens.
    """

    def __init__(
        self,
        problem: str,
        *,
        retryable: bool,
        after_s: float | None = None,
        hint: str = "",
        cause: str = "",
        is_load: bool = False,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.cause = cause
        self.retryable = retryable
        self.after_s = after_s
        self.is_load = is_load
        self.partial = self.partial_reasoning = ""
        self.prompt_tokens = self.completion_tokens = 0
        self.engine_seconds = 0.0

    def __str__(self) -> str:
        return f"{self.problem}; {self.hint}" if self.hint else self.problem


class RefusedError(EngineError):
    """A repetition of the same call changes nothing."""

    def __init__(self, problem: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(problem, retryable=False, hint=hint, cause=cause)


class CallRefused(RefusedError):
    """The engine works but will never answer this call: the prompt is too long, or the answer was
    filtered.
    """


class AccessRefused(RefusedError):
    """The engine denies access to this process."""


class PluginError(HintedError):
    """A domain, engine or store of another package raised an error that is none of these."""


class BudgetUsedUp(HintedError):
    """The run's [budget] is used up."""


class Interrupted(ProofloopError):
    """A stop of the run was requested; it can be resumed."""


class Retry(ProofloopError):
    """Deliver this message again after `after_s` seconds. The delivery does not count as a
    failure.
    """

    def __init__(self, reason: str, *, after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Reject(ProofloopError):
    """This message can never be handled. The bus moves it to the dead letters with this reason."""
