"""Problem domains."""

from proofloop.domains.base import CritiqueFinding, Defect, Domain, ProofFinding
from proofloop.errors import ConfigError

__all__ = ["CritiqueFinding", "Defect", "Domain", "ProofFinding", "domain_names", "load_domain", "prompts_of"]


def load_domain(name: str) -> Domain:
    """The domain of that name. Raises ConfigError."""
    from proofloop.domains.nano import NanoDomain

    if name in domain_names():
        return NanoDomain(name)
    raise ConfigError(f"unknown domain {name!r}", f"one of: {', '.join(domain_names())}; or give problems.file")


def domain_names() -> tuple[str, ...]:
    """The domains there are."""
    from proofloop.domains.nano import LENGTHS

    return tuple(LENGTHS)


def prompts_of(name: str | None) -> str:
    """The prompt pack in whose form a domain's problems are answered; without a domain that of people's problems."""
    return "nano" if name in domain_names() else "math"
