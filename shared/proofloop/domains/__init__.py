"""Problem domains."""

from proofloop.domains.base import CritiqueFinding, Defect, Domain, ProofFinding
from proofloop.errors import ConfigError

__all__ = ["CritiqueFinding", "Defect", "Domain", "ProofFinding", "load_domain", "prompts_of"]


def load_domain(name: str) -> Domain:
    """The domain of that name. Raises ConfigError."""
    from proofloop.domains.nano import LENGTHS, NanoDomain

    if name in LENGTHS:
        return NanoDomain(name)
    raise ConfigError(f"unknown domain {name!r}", f"one of: {', '.join(LENGTHS)}; or give problems.file")


def prompts_of(name: str | None) -> str:
    """The prompt pack in whose form a domain's problems are answered; without a domain that of people's problems."""
    from proofloop.domains.nano import LENGTHS

    return "nano" if name in LENGTHS else "math"
