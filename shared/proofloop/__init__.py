"""Mathematical reasoning that checks itself. The names below are the Python API.

They load on first use: `import proofloop` by itself imports nothing.
"""

from proofloop.version import __version__

TYPE_CHECKING = False  # as in typing, whose import would take longer than all else here

if TYPE_CHECKING:
    from proofloop.api import CritiqueResult, ProofResult, Run, judge, open_store, prove
    from proofloop.errors import ConfigError, ProofloopError

__all__ = [
    "ConfigError",
    "CritiqueResult",
    "ProofResult",
    "ProofloopError",
    "Run",
    "__version__",
    "judge",
    "open_store",
    "prove",
]

_ERRORS = ("ConfigError", "ProofloopError")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f"proofloop.{'errors' if name in _ERRORS else 'api'}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
