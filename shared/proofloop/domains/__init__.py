"""Problem domains."""

from proofloop.domains.base import CritiqueFinding, Defect, Domain, ProofFinding
from proofloop.errors import ConfigError

__all__ = ["CritiqueFinding", "Defect", "Domain", "ProofFinding", "load_domain"]


def load_domain(name: str) -> Domain:
    """The domain of that name. Raises ConfigError."""
    from proofloop.domains.nano import NanoDomain

    if name == "nano":
        return NanoDomain()
    raise ConfigError(f"unknown domain {name!r}", "one of: nano; or give problems.file")
