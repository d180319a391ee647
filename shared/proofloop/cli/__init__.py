"""The command line. stdout is data, stderr is everything else.

Exit codes: 0 done; 1 failed; 2 bad input; 3 a run is done, but no answer of its generator or of its
verifier was readable; 4 a run's [budget] is used up; 130 stopped.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import traceback

from proofloop.errors import (
    RESUME_HINT,
    BudgetUsedUp,
    ConfigError,
    CorruptObject,
    HintedError,
    Interrupted,
    ProofloopError,
)
from proofloop.plugins import plugin_error
from proofloop.typeset.printable import printable

GC_THRESHOLD = 10_000
"""New objects between two garbage collections. With Python's 700 a curriculum looks for garbage
among the half million objects of its libraries every five seconds, and finds next to none.
"""


def main() -> None:
    """The command `proofloop`: prints each expected error as one line."""
    _replace_closed_streams()
    _print_utf8()
    from proofloop.cli.app import app

    gc.set_threshold(GC_THRESHOLD)
    try:
        app()
    except ConfigError as error:
        _exit(2, "error", error.problem, error.hint)
    except CorruptObject as error:
        _exit(2, "error", error, "restore this file, or delete it (of a model, all files)")
    except Interrupted as error:
        _exit(130, "stopped", f"{error}; stored results are kept", RESUME_HINT)
    except BudgetUsedUp as error:
        _exit(4, "stopped", error.problem, error.hint)
    except OSError as error:  # a folder that cannot be written, a full disk
        problem = f"{error.filename or 'this machine'}: {error.strerror or error}"
        _exit(2, "error", problem, "check this machine with `proofloop doctor`")
    except HintedError as error:
        _exit(1, "error", error.problem, error.hint)
    except ProofloopError as error:
        _exit(1, "error", error)
    except Exception as error:
        if (found := plugin_error(error)) is None:
            raise  # a bug of proofloop
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exception(error)
        _exit(1, "error", found.problem, found.hint)


def _replace_closed_streams() -> None:
    """Discard what is written to a stream that the shell closed (`>&-`): Python then has none."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _print_utf8() -> None:
    """Another encoding, such as that of a locale, lacks most characters of proofs."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def _exit(code: int, what: str, problem: object, hint: str = "") -> None:
    """Print one line and exit."""
    text = f"{what}: {problem}" + (f" (hint: {hint})" if hint else "")
    print(printable(text.replace("\n", " ")), file=sys.stderr)
    sys.exit(code)
