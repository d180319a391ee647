"""The command line. stdout is data, stderr is everything else.

Exit codes: 0 done; 1 failed; 2 bad input; 3 a run is done, but no answer of its generator or of its
verifier was readable; 4 a run's [budget] is used up; 130 stopped.
"""

from __future__ import annotations

import sys

from proofloop.errors import BudgetUsedUp, ConfigError, CorruptObject, ProofloopError
from proofloop.pipeline.embedded import Interrupted


def main() -> None:
    """The command `proofloop`: prints each expected error as one line."""
    from proofloop.cli.app import app

    try:
        app()
    except ConfigError as error:
        _end(f"error: {error.problem}" + (f" (hint: {error.hint})" if error.hint else ""), 2)
    except CorruptObject as error:
        _end(
            f"error: {error} (hint: restore this file, or delete it and run again; of a model"
            " version, delete all files)",
            2,
        )
    except Interrupted as error:
        _end(
            f"stopped: {error}; stored results are kept. Run the command again to continue"
            " (`proofloop run`: with --resume)",
            130,
        )
    except BudgetUsedUp as error:
        _end(f"stopped: {error}", 4)
    except OSError as error:  # a folder that cannot be written, a full disk
        _end(
            f"error: {error.filename or 'this machine'}: {error.strerror or error} (hint:"
            " check this machine with `proofloop doctor`)",
            2,
        )
    except ProofloopError as error:
        _end(f"error: {error}", 1)


def _end(text: str, code: int) -> None:
    problem, _, hint = text.partition("\nhint: ")
    text = f"{problem} (hint: {hint})" if hint else problem
    print(" ".join(text.split("\n")), file=sys.stderr)
    sys.exit(code)
