"""Every error proofloop raises, drawn as a tree.

ProofloopError
├── ConfigError          the user's input is wrong: one line, exit code 2
├── StoreError           the object store did not do what was asked
│   ├── NotFound         no object under that key
│   └── CorruptObject    an object is there and cannot be read as what it should be
├── BusError             the message broker is away or refuses
├── EngineError          a model call failed; says whether trying again can help
│   ├── CallRefused      this one call can never work, others can: its proof or critique is recorded as failed
│   └── AccessRefused    no call of this process can work: its key is missing or wrong
├── BudgetUsedUp         a run has used what its [budget] allows: it can be resumed with more, exit code 4
├── Retry                a handler asks for the message again, later
└── Reject               a handler says that this message can never work: dead letter

Anything else that leaves a handler is a bug: redelivered up to the delivery limit, then a dead letter.
"""

from __future__ import annotations

import shlex

TRUST_HINT = "set SSL_CERT_FILE to the certificate of the authority that signed it"
"""The way out for whoever runs broker or store with an authority of their own."""


def install_hint(*parts: str) -> str:
    """The way out where parts are missing: roles, `serving`, or extras of the core as `[cluster]`.

    By folder, not by name: PyPI's `proofloop` is another project.
    """
    needed = ("serving", *parts) if "trainer" in parts else parts
    return f"in a clone of proofloop: pip install {' '.join(shlex.quote(_folder_of(part)) for part in needed)}"


def _folder_of(part: str) -> str:
    if part.startswith("["):
        return f"./shared{part}"
    return f"./{part}" if part == "serving" else f"./services/{part}"


class ProofloopError(Exception):
    """The root: catch this to catch whatever proofloop says on purpose."""


class ConfigError(ProofloopError):
    """A value the user gave cannot be used; `hint` is the way out."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\nhint: {self.hint}" if self.hint else self.problem


class StoreError(ProofloopError):
    """The object store is away, full, or refuses."""


class NotFound(StoreError):
    """There is no object under this key."""


class CorruptObject(StoreError):
    """The object under this key is not what it should be."""


class BusError(ProofloopError):
    """The message broker is away, blocked, or refuses."""


class EngineError(ProofloopError):
    """A model call failed. `retryable` is true when the same call may work later: in `after_s`, if the engine says.

    `hint` is the way out, where the engine knows one. `cause` is the problem without what differs from call to call,
    so that it can be counted. `partial` and `partial_reasoning` are what had come of the answer.
    """

    def __init__(
        self, problem: str, *, retryable: bool, after_s: float | None = None, hint: str = "", cause: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem, self.hint, self.cause = problem, hint, cause
        self.retryable, self.after_s = retryable, after_s
        self.partial = self.partial_reasoning = ""

    def __str__(self) -> str:
        return f"{self.problem}; {self.hint}" if self.hint else self.problem


class CallRefused(EngineError):
    """The engine works and will never answer this call: too long a prompt, a filtered answer."""

    def __init__(self, problem: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(problem, retryable=False, hint=hint, cause=cause)


class AccessRefused(EngineError):
    """The engine does not let this process ask."""

    def __init__(self, problem: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(problem, retryable=False, hint=hint, cause=cause)


class BudgetUsedUp(ProofloopError):
    """The run's [budget] is used up; `hint` is the way on."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.hint = problem, hint

    def __str__(self) -> str:
        return f"{self.problem}\nhint: {self.hint}" if self.hint else self.problem


class Retry(ProofloopError):
    """Deliver this message again after `after_s` seconds; it counts as no failure of the message."""

    def __init__(self, reason: str, *, after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Reject(ProofloopError):
    """This message can never be handled: send it to the dead letters with this reason."""
