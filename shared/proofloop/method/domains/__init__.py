"""The built-in problem domains, by name."""

from proofloop.errors import ConfigError
from proofloop.method.domains.base import CritiqueFinding, Defect, Domain, ProofFinding

__all__ = [
    "CritiqueFinding",
    "Defect",
    "Domain",
    "ProofFinding",
    "domain_names",
    "load_domain",
    "prompts_of",
]


def load_domain(name: str) -> Domain:
    """The domain of that name. Raises ConfigError if there is none."""
    from proofloop.method.domains.nano import NanoDomain

    if name in domain_names():
        return NanoDomain(name)
    raise ConfigError(
        f"unknown domain {name!r}", f"use one of: {', '.join(domain_names())}; or set problems.file"
    )


def domain_names() -> tuple[str, ...]:
    """The names of all domains."""
    from proofloop.method.domains.nano import LENGTHS

    return tuple(LENGTHS)


def prompts_of(name: str | None) -> str:
    """The name of the prompt pack for a domain's problems; without a domain, the pack for problems
    from a file.
    """
    return "nano" if name in domain_names() else "math"
