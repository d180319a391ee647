"""Problem domains by name: those that come with proofloop, and those of other packages.

A package adds a domain by an entry point of the group `proofloop.domains`: a callable without
arguments that returns the Domain, such as its class.
"""

from collections.abc import Callable

from proofloop.errors import ConfigError
from proofloop.method.domains.base import (
    Checker,
    CritiqueFinding,
    Defect,
    Domain,
    ProofFinding,
    Sample,
    is_in_split,
)
from proofloop.plugins import load_plugin, plugin_names

__all__ = [
    "Checker",
    "CritiqueFinding",
    "Defect",
    "Domain",
    "ProofFinding",
    "Sample",
    "domain_names",
    "find_checker",
    "find_domain",
    "is_in_split",
    "load_checker",
    "load_domain",
    "need_checker",
    "need_critique_finding",
    "need_proof_finding",
    "prompts_of",
]

ENTRY_POINT_GROUP = "proofloop.domains"
BUILT_IN = ("nano", "nano-long")
GRADE_HINT = "use a domain whose checker can, or grade proofs with `proofloop ui`"


def load_domain(name: str) -> Domain:
    """The domain of that name. Raises ConfigError if there is none, or its package is broken."""
    if (domain := find_domain(name)) is not None:
        return domain
    raise ConfigError(
        f"unknown domain {name!r}",
        f"use one of: {', '.join(domain_names())}; or install the package that has it; or set"
        " problems.file",
    )


def find_domain(name: str) -> Domain | None:
    """The domain of that name, or None if it is not installed here. Raises ConfigError if its
    package is broken.
    """
    if name in BUILT_IN:
        from proofloop.method.domains.nano import NanoDomain

        return NanoDomain(name)
    make = load_plugin(ENTRY_POINT_GROUP, name)
    return None if make is None else _made(name, make)


def _made(name: str, make: Callable[[], Domain]) -> Domain:
    try:
        domain = make()
        own_name = domain.name
    except Exception as error:  # code of another package
        raise ConfigError(
            f"domain {name!r} cannot be made: {error}",
            "let its entry point name a class derived from proofloop.method.domains.Domain, with"
            " `name` and `pose`",
        ) from error
    if own_name != name:
        raise ConfigError(
            f"domain {name!r} calls itself {own_name!r}", "use one name for it and its entry point"
        )
    return domain


def domain_names() -> tuple[str, ...]:
    """The names of all installed domains."""
    return tuple(dict.fromkeys((*BUILT_IN, *plugin_names(ENTRY_POINT_GROUP))))


def prompts_of(name: str | None) -> str:
    """The name of the prompt pack for a domain's problems; without an installed domain, the pack
    for problems from a file.
    """
    domain = find_domain(name) if name else None
    return domain.prompt_pack if domain else "math"


def need_checker(domain: Domain) -> Checker:
    """The domain's exact checker. Raises ConfigError if it has none."""
    if domain.checker is None:
        raise ConfigError(f"domain {domain.name!r} has no exact checker", GRADE_HINT)
    return domain.checker


def find_checker(name: str | None) -> Checker | None:
    """The exact checker of the domain of that name; None without a name, or if the domain has none
    or is not installed here.
    """
    domain = find_domain(name) if name else None
    return domain.checker if domain else None


def load_checker(name: str) -> Checker:
    """The exact checker of the domain of that name. Raises ConfigError if there is none."""
    return need_checker(load_domain(name))


def need_proof_finding(domain: Domain, question: str, solution: str) -> ProofFinding:
    """The exact finding on a proof. Raises ConfigError if the domain cannot check it."""
    finding = need_checker(domain).check_proof(question, solution)
    if finding is None:
        raise _unchecked(domain, "proofs", question)
    return finding


def need_critique_finding(
    domain: Domain, question: str, solution: str, analysis: str
) -> CritiqueFinding:
    """The exact finding on a critique. Raises ConfigError if the domain cannot check it."""
    finding = need_checker(domain).check_critique(question, solution, analysis)
    if finding is None:
        raise _unchecked(domain, "critiques", question)
    return finding


def _unchecked(domain: Domain, what: str, question: str) -> ConfigError:
    return ConfigError(
        f"the checker of domain {domain.name!r} cannot check {what} of {question[:60]!r}",
        GRADE_HINT,
    )
